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
const TIMEOUT: Duration = Duration::from_secs(SECONDS as u64 + 60);

#[test]
fn the_kernel_renews_its_session_after_two_minutes_without_loss() {
    let name = "the_kernel_renews_its_session_after_two_minutes_without_loss";
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
    ensure!(output.contains(" 0% packet loss"), "packets were lost on the way to new keys:\n{output}");
    let second = pair.handshakes()?;
    let (kernel, wgx) = (second.0.saturating_sub(first.0), second.1.saturating_sub(first.1));
    ensure!((115..=135).contains(&kernel), "the kernel says that it renewed after {kernel} s");
    ensure!((115..=135).contains(&wgx), "wgx says that it was renewed after {wgx} s");
    Ok(())
}
