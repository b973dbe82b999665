//! Starting a process inside a host.
//!
//! A process can't move into another pid namespace, only its children can be born there; so a thread
//! made for it sets where its children are born and starts the command, and the child enters the other
//! namespaces before it becomes the command. It is a child of ours, with nothing in between that would
//! have to be stopped, resumed, killed and reaped along with it (as `nsenter` would).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;

/// Starts `command` in all namespaces of process `init`, in the root of its file systems.
pub(super) fn spawn_in(init: i32, command: &mut Command) -> io::Result<Child> {
    let host = open_pidfd(init)?;
    let number = host.as_raw_fd();
    let rest = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET;
    // SAFETY: between fork and exec the closure makes one system call and touches no memory.
    unsafe { command.pre_exec(move || set_namespaces(number, rest)) };
    let born_there = || {
        set_namespaces(number, libc::CLONE_NEWPID)?;
        command.spawn()
    };
    thread::scope(|scope| scope.spawn(born_there).join())
        .unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
}

fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a system call on two numbers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = RawFd::try_from(descriptor).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us, and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn set_namespaces(of: RawFd, which: i32) -> io::Result<()> {
    // SAFETY: a system call on two numbers.
    if unsafe { libc::setns(of, which) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
