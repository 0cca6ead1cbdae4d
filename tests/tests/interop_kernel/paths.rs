//! Loss, duplication, reordering and delay between the two, by netem in the guest, in both directions.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    Io, Lab, Namespace,
    guest::{Cell, GUEST_INTERFACE, Guest, Pair},
    interop::Role,
    site::Family,
};

/// Pings per kind of path and direction.
const COUNT: u32 = 40;
const TIMEOUT: Duration = Duration::from_secs(40);

pub fn bad_paths_lose_but_never_repeat(lab: &mut Lab, pair: &mut Pair, _: Io) -> Result<()> {
    Path::open(&pair.guest)?;
    let cells = [(Role::Initiator, Family::V4, Family::V6), (Role::Responder, Family::V6, Family::V4)];
    for (role, outer, inner) in cells {
        // Every handshake message arrives twice, and late: one session comes of it.
        Path { guest: &pair.guest }.set("delay 100ms 20ms duplicate 100%")?;
        let cell = Cell { role, outer, inner, psk: true };
        pair.meet(lab, cell)?;
        let path = Path { guest: &pair.guest };
        let before = pair.status()?;
        match role {
            Role::Initiator => pair.ping_from_kernel(inner, "-c 1")?,
            Role::Responder => pair.ping_from_server(inner, "-c 1")?,
        };
        check(pair, inner, 0).with_context(|| format!("{cell}: everything twice"))?;
        let twice = pair.status()?.since(&before);
        ensure!(twice.verdict("drop_replayed") > 0, "nothing came twice: {:?}", twice.verdicts());

        path.set("delay 20ms 15ms reorder 50% 25%")?;
        check(pair, inner, 0).with_context(|| format!("{cell}: out of order"))?;
        path.set("loss 10%")?;
        // A fifth of the answers is missing on average; 30 of 40 would be one chance in a trillion.
        check(pair, inner, COUNT * 3 / 4).with_context(|| format!("{cell}: loss"))?;
        path.set("delay 1ms")?;
        check(pair, inner, 0).with_context(|| format!("{cell}: all is well again"))?;
    }
    Ok(())
}

/// Pings both ways: none answered twice, and no more than `lost_max` lost.
///
/// `ping` waits for the last replies as long as two round trips took, which on a busy machine they may exceed: where it
/// gave up on the last ones only, it is asked again.
fn check(pair: &Pair, inner: Family, lost_max: u32) -> Result<()> {
    let options = format!("-n -c {COUNT} -i 0.01 -W 1");
    let line = format!("ping {options} {}", Pair::server(inner));
    once_each(lost_max, || Ok(pair.guest.attempt(&line, TIMEOUT)?.output)).context("from the kernel")?;
    let line = format!("ping {options} {}", Pair::kernel_inner(inner));
    let server: &Namespace = &pair.site.server;
    once_each(lost_max, || Ok(server.attempt(&line, TIMEOUT)?.stdout)).context("from the server")
}

fn once_each(lost_max: u32, pings: impl Fn() -> Result<String>) -> Result<()> {
    for _ in 0..5 {
        let output = pings()?;
        let (lost, answered) = (lost(&output)?, answered(&output)?);
        if lost.len() <= lost_max as usize {
            return Ok(());
        }
        let is_cut_off = !answered.is_empty() && lost.iter().min() > answered.iter().max();
        ensure!(is_cut_off, "{} of {COUNT} were lost:\n{output}", lost.len());
    }
    bail!("the last replies were late, each of five times")
}

/// Those that were not answered.
fn lost(output: &str) -> Result<Vec<u32>> {
    let answered = answered(output)?;
    Ok((1..=COUNT).filter(|sequence| !answered.contains(sequence)).collect())
}

/// Those that were answered; an error if one was twice.
fn answered(output: &str) -> Result<BTreeSet<u32>> {
    let sequences: Vec<u32> = output
        .lines()
        .filter(|line| line.contains("bytes from"))
        .filter_map(|line| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok())
        .collect();
    let distinct: BTreeSet<_> = sequences.iter().copied().collect();
    ensure!(distinct.len() == sequences.len() && !output.contains("DUP!"), "delivered twice:\n{output}");
    Ok(distinct)
}

/// What the guest's interface does to packets, both ways.
pub struct Path<'a> {
    pub guest: &'a Guest,
}

impl Path<'_> {
    /// Leads what arrives over an interface of its own, where it can be queued too.
    pub fn open(guest: &Guest) -> Result<()> {
        guest.run(&format!(
            "ip link set ifb0 up && tc qdisc add dev {GUEST_INTERFACE} ingress && \
             tc filter add dev {GUEST_INTERFACE} parent ffff: matchall action mirred egress redirect dev ifb0"
        ))?;
        Ok(())
    }

    /// Sets netem both ways.
    pub fn set(&self, netem: &str) -> Result<()> {
        self.set_on(GUEST_INTERFACE, netem)?;
        self.set_on("ifb0", netem)
    }

    /// Sets netem on what leaves (`eth0`) or what arrives (`ifb0`).
    pub fn set_on(&self, interface: &str, netem: &str) -> Result<()> {
        self.guest.run(&format!("tc qdisc replace dev {interface} root netem {netem}"))?;
        Ok(())
    }
}
