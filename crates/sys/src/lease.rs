//! Whether a process has a file open for writing, as the kernel tells with a lease (`fcntl(2)`): one system call on a
//! descriptor that is borrowed, with integers alone.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The signal that the kernel sends to this process when another one waits for the lease to end. This one does
/// nothing unless it is handled; the default would be `SIGIO`, which ends a process.
const SIGNAL: libc::c_int = libc::SIGURG;

/// The `fcntl` command that sets this signal (`include/uapi/asm-generic/fcntl.h`).
const F_SETSIG: libc::c_int = 10;

/// A lease: while it lasts, a process that opens the file for writing has to wait.
#[derive(Debug)]
pub struct ReadLease<'fd>(BorrowedFd<'fd>);

impl<'fd> ReadLease<'fd> {
    /// Takes a lease on a file that is open for reading only. Fails with `WouldBlock` where a process has the file
    /// open for writing, and with other errors where the file system has no leases or the file is another user's.
    pub fn take(file: BorrowedFd<'fd>) -> io::Result<Self> {
        fcntl(file, F_SETSIG, SIGNAL)?;
        fcntl(file, libc::F_SETLEASE, libc::F_RDLCK)?;
        Ok(Self(file))
    }

    /// Whether a process waits to open the file for writing.
    pub fn is_waited_for(&self) -> bool {
        !fcntl(self.0, libc::F_GETLEASE, 0).is_ok_and(|lease| lease == libc::F_RDLCK)
    }
}

impl Drop for ReadLease<'_> {
    fn drop(&mut self) {
        // It ends with the descriptor in any case.
        let _ = fcntl(self.0, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

#[allow(unsafe_code, reason = "no safe wrapper has these commands")]
fn fcntl(file: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open while it is borrowed, and the commands that this module has take an
    // integer, or nothing, and touch no memory of this process.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
