//! A network namespace for one test: it belongs to a thread and ends with it.

use std::process::Command;

use crate::report;

/// Runs `test` on a thread in a new network namespace with the loopback up.
pub fn within(name: &str, test: impl FnOnce() + Send) {
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| match unshare() {
            Ok(()) => {
                ip("link set lo up");
                test();
            }
            Err(error) => report::skip(name, &format!("cannot make a network namespace: {error}")),
        });
        thread.join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[expect(unsafe_code, reason = "unshare(2) has no safe wrapper")]
fn unshare() -> rustix::io::Result<()> {
    // SAFETY: CLONE_NEWNET unshares no memory and no descriptors, only which network new sockets belong to.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
}

/// Runs `ip` with `arguments` in this thread's namespace.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A veth pair, `va` and `vb`, both up and quiet (no IPv6 neighbour discovery, no offloads).
pub fn make_veth(queues: u32) {
    ip(&format!(
        "link add va address 02:00:00:00:00:0a numrxqueues {queues} numtxqueues {queues} type veth peer name vb \
         address 02:00:00:00:00:0b numrxqueues {queues} numtxqueues {queues}"
    ));
    for name in ["va", "vb"] {
        ip(&format!("link set {name} addrgenmode none"));
        ip(&format!("link set {name} up"));
    }
}
