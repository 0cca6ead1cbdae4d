//! Under load a system call serves many packets.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tests::{
    Implementation, Io, World, ping, scenario, scenario_with_wgx,
    site::{SERVER_HOST, server_side},
    wait_until,
};

/// Packets that the server sends as fast as it can.
const PACKET_COUNT: u32 = 300_000;
/// Of these the gateway must seal as many at least, or it was not under load.
const SEALED_MIN: u64 = 10_000;
/// The discard port: nobody answers.
const PORT: u16 = 9;

#[test]
fn system_calls_are_shared_by_the_packets_of_a_burst() {
    let name = "system_calls_are_shared_by_the_packets_of_a_burst";
    scenario_with_wgx(name, |lab| {
        let Some(strace) = tests::program::find("strace") else {
            scenario::skip(name, "needs strace; run `cargo xtask setup`");
            return Ok(());
        };
        let world = World::build(lab, Implementation::Wgx(Io::AfXdp))?;
        let client = &world.clients[0];
        for _ in 0..3 {
            ping::all_answered(&client.namespace, server_side(SERVER_HOST).v4.into(), 2)?;
        }
        let gateway = world.gateway.running()?.pid();
        let summary = lab.folder().join("system-calls");
        let mut command = std::process::Command::new(strace);
        command.args(["-f", "-q", "-c", "-o"]).arg(&summary).args(["-p", &gateway.to_string()]);
        let mut tracer = lab.spawn("strace", &mut command)?;
        wait_until("strace traces all threads", Duration::from_secs(10), || all_threads_traced(gateway))?;

        let before = world.gateway.status()?;
        let to = SocketAddr::new(client.inner.v4.into(), PORT);
        world.site.server.enter(|| flood(to))??;
        let delta = world.gateway.status()?.since(&before);
        tracer.signal(rustix::process::Signal::INT)?;
        tracer.wait(Duration::from_secs(10))?;

        let (sealed, calls) = (delta.verdict("sealed_to_link"), total_calls(&summary)?);
        ensure!(sealed >= SEALED_MIN, "only {sealed} packets were sealed: {:?}", delta.verdicts());
        scenario::note(name, &format!("{calls} system calls of all threads for {sealed} packets"));
        ensure!(
            calls * 4 <= sealed,
            "{calls} system calls for {sealed} packets:\n{}",
            std::fs::read_to_string(&summary)?
        );
        Ok(())
    });
}

/// Whether every thread of the process has a tracer.
fn all_threads_traced(pid: u32) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        if status.lines().any(|line| line == "TracerPid:\t0") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn flood(to: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    for _ in 0..PACKET_COUNT {
        // What the device's queue has no room for is not sent: that is the load this test wants.
        let _ = socket.send_to(&[0; 200], to);
    }
    Ok(())
}

/// The calls on the last line of strace's summary: `% time`, seconds, microseconds per call, calls.
fn total_calls(summary: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(summary).context("strace wrote no summary")?;
    text.lines()
        .find(|line| line.ends_with(" total"))
        .and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
        .with_context(|| format!("no total in strace's summary:\n{text}"))
}
