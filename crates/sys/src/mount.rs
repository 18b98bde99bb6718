//! Mounts in the form of fstab, and the mount table.
