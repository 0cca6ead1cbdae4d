//! The kernel renews its session with `wgx` after `REKEY_AFTER_TIME`, under traffic: by the clocks of both, which no
//! simulation can replace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{
    Io, Lab,
    guest::{self, Cell, Pair},
    interop::Role,
    scenario, scenario_with_wgx,
    site::Family,
};

/// Seconds of traffic: past the 120 after which the initiator renews, with time for a slow machine.
const SECONDS: u32 = 130;
const PINGS_PER_SECOND: u32 = 4;
/// An emulated machine beside other tests may lose a ping. Keys that do not follow each other lose all of seconds.
const LOST_MAX: u32 = 2;
const TIMEOUT: Duration = Duration::from_secs(SECONDS as u64 + 60);

#[test]
fn the_kernel_renews_its_session_after_two_minutes_without_a_break() {
    let name = "the_kernel_renews_its_session_after_two_minutes_without_a_break";
    match guest::obstacle() {
        Some(why) => scenario::skip(name, &why),
        None => scenario_with_wgx(name, |lab| {
            let mut pair = Pair::build(lab, Io::AfXdp)?;
            renewal(lab, &mut pair)
        }),
    }
}

fn renewal(lab: &Lab, pair: &mut Pair) -> Result<()> {
    let cell = Cell { role: Role::Initiator, outer: Family::V4, inner: Family::V4, psk: true };
    pair.meet(lab, cell)?;
    pair.ping_from_kernel(Family::V4, "-c 1")?;
    let first = pair.handshakes()?;
    let count = SECONDS * PINGS_PER_SECOND;
    let line = format!("ping -n -q -c {count} -i 0.25 -W 5 {}", Pair::server(Family::V4));
    let output = pair.guest.attempt(&line, TIMEOUT).context("the pings did not end")?.output;
    let received = received(&output).with_context(|| format!("not what ping says:\n{output}"))?;
    let lost = count.saturating_sub(received);
    ensure!(lost <= LOST_MAX, "{lost} packets were lost on the way to new keys:\n{output}");
    let second = pair.handshakes()?;
    let (kernel, wgx) = (second.0.saturating_sub(first.0), second.1.saturating_sub(first.1));
    ensure!((115..=135).contains(&kernel), "the kernel says that it renewed after {kernel} s");
    ensure!((115..=135).contains(&wgx), "wgx says that it was renewed after {wgx} s");
    Ok(())
}

/// From `520 packets transmitted, 520 received, 0% packet loss`.
fn received(output: &str) -> Option<u32> {
    let before = output.split_once(" received")?.0;
    before.rsplit(' ').next()?.parse().ok()
}
