//! Named pipes as containerd's clients use them.
