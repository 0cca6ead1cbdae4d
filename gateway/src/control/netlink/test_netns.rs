//! A network namespace for one test: it belongs to the thread and ends with it.

use std::process::Command;

/// Moves this thread into a new network namespace.
///
/// # Errors
/// The process is not privileged.
#[expect(unsafe_code, reason = "unshare(2) has no safe wrapper")]
pub fn enter() -> rustix::io::Result<()> {
    // SAFETY: CLONE_NEWNET unshares no memory and no descriptors; it changes which network the sockets this
    // thread opens from now on belong to, and nothing else.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
}

/// Runs `ip` with `arguments` in this thread's namespace.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The interface index of a link in this thread's namespace.
pub fn index_of(name: &str) -> u32 {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).unwrap();
    rustix::net::netdevice::name_to_index(socket, name).unwrap()
}
