//! Loop devices: a file as a block device.
//!
//! A device is either tied to its users ([`AutoClear::Yes`]: the kernel frees it when the last mount and descriptor are
//! gone) or stays until it is told otherwise, across the end of the process that made it.

#![allow(unsafe_code, reason = "ioctl takes a pointer")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use types::{Error, Result, ResultExt};

// <linux/loop.h>; the same numbers on every architecture.
const LOOP_SET_STATUS64: libc::Ioctl = 0x4C04;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// How often another free device is looked for when somebody else took ours: the same as upstream.
const RACES: u32 = 100;

/// Whether the kernel frees the device when nobody uses it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoClear {
    /// Gone with its last user.
    Yes,
    /// Stays until it is changed to `Yes`.
    No,
}

/// What the device lets do with its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// An open loop device.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Makes a free device show `file`.
    pub fn attach(file: &Path, access: Access, clear: AutoClear) -> Result<Self> {
        Self::try_attach(file, access, clear).context(|| format!("attach {file:?} to a loop device"))
    }

    fn try_attach(file: &Path, access: Access, clear: AutoClear) -> Result<Self> {
        let open = |path: &Path| OpenOptions::new().read(true).write(access == Access::ReadWrite).open(path);
        let backing = open(file)?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let mut info = Info { flags: flags(access, clear), ..EMPTY };
        let name = file.as_os_str().as_bytes();
        // The last byte stays zero.
        let len = name.len().min(info.file_name.len() - 1);
        info.file_name[..len].copy_from_slice(&name[..len]);
        let fd = u32::try_from(backing.as_raw_fd()).map_err(|_| Error::internal("no descriptor"))?;
        let config = Config { fd, block_size: 0, info, reserved: [0; 8] };
        for _ in 0..RACES {
            let number = free_number(control.as_raw_fd())?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path).context(|| format!("open {path:?}"))?;
            match configure(device.as_raw_fd(), &config) {
                Ok(()) => return Ok(Self { device, path }),
                // Somebody else was faster.
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
        Err(Error::unavailable("every free loop device was taken by somebody else"))
    }

    /// Opens the device at `path`, which is in use.
    pub fn open(path: &Path) -> Result<Self> {
        let device = File::open(path).context(|| format!("open {path:?}"))?;
        Ok(Self { device, path: path.to_owned() })
    }

    /// Where the device is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes what becomes of the device when nobody uses it any more.
    pub fn set_auto_clear(&self, clear: AutoClear) -> Result<()> {
        let mut info = EMPTY;
        status(self.device.as_raw_fd(), LOOP_GET_STATUS64, &mut info)
            .context(|| format!("read the status of {:?}", self.path))?;
        info.flags &= !LO_FLAGS_AUTOCLEAR;
        info.flags |= flags(Access::ReadWrite, clear);
        status(self.device.as_raw_fd(), LOOP_SET_STATUS64, &mut info)
            .context(|| format!("set the status of {:?}", self.path))
    }
}

fn flags(access: Access, clear: AutoClear) -> u32 {
    let read_only = if access == Access::ReadOnly { LO_FLAGS_READ_ONLY } else { 0 };
    read_only | if clear == AutoClear::Yes { LO_FLAGS_AUTOCLEAR } else { 0 }
}

fn free_number(control: RawFd) -> Result<i32> {
    // SAFETY: the descriptor is open for as long as the caller's `File` lives; this request takes no argument.
    let number = unsafe { libc::ioctl(control, LOOP_CTL_GET_FREE) };
    if number < 0 {
        Err(io::Error::last_os_error()).context(|| "find a free loop device")
    } else {
        Ok(number)
    }
}

fn configure(device: RawFd, config: &Config) -> Result<(), Errno> {
    // SAFETY: the descriptor is open; the kernel reads one `loop_config`, whose layout `Config` has, during the call.
    match unsafe { libc::ioctl(device, LOOP_CONFIGURE, std::ptr::from_ref(config)) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

fn status(device: RawFd, request: libc::Ioctl, info: &mut Info) -> io::Result<()> {
    // SAFETY: the descriptor is open; the kernel reads or writes one `loop_info64`, whose layout `Info` has, during the
    // call, and any bytes are a valid `Info`.
    match unsafe { libc::ioctl(device, request, std::ptr::from_mut(info)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Info>(), size_of::<Config>()), (232, 304));
    }

    #[test]
    fn a_device_shows_its_file_and_is_gone_with_its_last_user() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("image");
        std::fs::write(&file, vec![7u8; 8192]).unwrap();
        let device = match LoopDevice::attach(&file, Access::ReadOnly, AutoClear::No) {
            Ok(device) => device,
            Err(error) => {
                eprintln!("not run: no loop devices here: {error}");
                return;
            }
        };
        let path = device.path().to_owned();
        let mut first = [0; 16];
        File::open(&path).unwrap().read_exact(&mut first).unwrap();
        assert_eq!(first, [7; 16]);
        drop(device);
        // It stayed without a user; now it may go.
        LoopDevice::open(&path).unwrap().set_auto_clear(AutoClear::Yes).unwrap();
        let backing = Path::new("/sys/block").join(path.file_name().unwrap()).join("loop/backing_file");
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&backing).is_ok_and(|shown| shown.trim() == file.to_string_lossy()) {
            assert!(Instant::now() < deadline, "{path:?} still shows its file");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
