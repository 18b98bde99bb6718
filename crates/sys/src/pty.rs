//! Terminals: the master that an OCI runtime sends over its console socket, and its window size.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};

/// Takes the one descriptor that a peer sent over a unix socket; anything else that came with it is closed.
pub fn receive(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut name = [0u8; 4096];
    let mut space = [const { MaybeUninit::uninit() }; rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message =
        recvmsg(socket, &mut [io::IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let truncated = message.flags.contains(ReturnFlags::CTRUNC);
    match (fds.pop(), fds.is_empty() && !truncated) {
        (Some(fd), true) => Ok(fd),
        _ => Err(Errno::BADMSG.into()),
    }
}

/// Tells the terminal its size in characters.
pub fn resize(master: impl AsFd, width: u16, height: u16) -> io::Result<()> {
    Ok(tcsetwinsize(master, Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 })?)
}
