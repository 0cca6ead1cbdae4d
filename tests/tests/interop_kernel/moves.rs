//! Peers that are added anew, change keys, move, or claim addresses that are not theirs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{
    Io, Lab,
    guest::{Cell, GUEST_INTERFACE, Pair},
    interop::Role,
    keys::Keys,
    site::{Family, LISTEN_PORT, UPLINK},
    wait_until,
};

/// For what happens at once; the machine may be busy.
const SOON: Duration = Duration::from_secs(30);
/// A keepalive: no content, header and tag.
const KEEPALIVE_LEN: u64 = 32;

pub fn peers_that_move_and_change_keys_are_followed(lab: &mut Lab, pair: &mut Pair, _: Io) -> Result<()> {
    let cell = Cell { role: Role::Initiator, outer: Family::V4, inner: Family::V4, psk: true };
    pair.meet(lab, cell)?;
    pair.ping_from_kernel(Family::V4, "-c 1")?;
    peers_added_anew_shake_hands(pair).context("peers added anew")?;
    changed_keys_are_used_at_once(pair).context("changed keys")?;
    strange_sources_are_refused(pair).context("strange sources")?;
    kernel_is_followed(pair).context("the kernel moves")?;
    wgx_is_followed(pair).context("wgx moves")?;
    keepalives_are_sent_and_counted(lab, pair).context("keepalives")
}

/// The other side still has the old session: a new handshake replaces it on both.
fn peers_added_anew_shake_hands(pair: &Pair) -> Result<()> {
    let wgx = pair.wgx_section(Some(pair.gateway.endpoint(Family::V4)));
    pair.kernel().configure(&pair.kernel_keys, LISTEN_PORT, &[wgx])?;
    first_answer_to_kernel(pair).context("the kernel forgot wgx")?;
    two_from_kernel(pair).context("the kernel forgot wgx")?;
    two_from_server(pair).context("the kernel forgot wgx, back")?;

    let allowed = pair.kernel_section(None).peer.allowed_ips.join(",");
    let psk = pair.kernel_section(None).peer.preshared_key.context("this pair has one")?;
    pair.set_on_wgx("remove")?;
    let file = pair.secret_file("psk", psk.reveal())?;
    let endpoint = Pair::kernel_endpoint(Family::V4);
    pair.set_on_wgx(&format!("preshared-key {file} endpoint {endpoint} allowed-ips {allowed}"))?;
    two_from_server(pair).context("wgx forgot the kernel")?;
    two_from_kernel(pair).context("wgx forgot the kernel, back")?;
    Ok(())
}

/// Two pings, one by one: `ping -c 2` waits for the second reply only as long as two round trips took.
fn two_from_kernel(pair: &Pair) -> Result<()> {
    (0..2).try_for_each(|_| pair.ping_from_kernel(Family::V4, "-c 1").map(drop))
}

fn two_from_server(pair: &Pair) -> Result<()> {
    (0..2).try_for_each(|_| pair.ping_from_server(Family::V4, "-c 1").map(drop))
}

/// Nobody waits for a timer: the next packet starts a handshake under the new key.
fn changed_keys_are_used_at_once(pair: &mut Pair) -> Result<()> {
    let old = std::mem::replace(&mut pair.kernel_keys, Keys::generate()?);
    let wgx = pair.wgx_section(Some(pair.gateway.endpoint(Family::V4)));
    pair.replace_on_wgx(&old.public)?;
    pair.kernel().configure(&pair.kernel_keys, LISTEN_PORT, &[wgx])?;
    two_from_kernel(pair).context("the kernel's key")?;

    let old = std::mem::replace(&mut pair.gateway.keys, Keys::generate()?);
    let file = pair.secret_file("key", pair.gateway.keys.private.reveal())?;
    let interface = &pair.gateway.interface;
    pair.site.gateway.run(&format!("wg set {interface} private-key {file}"))?;
    pair.kernel().set(&format!("peer {} remove", old.public))?;
    let wgx = pair.wgx_section(None);
    pair.kernel().configure(&pair.kernel_keys, LISTEN_PORT, &[wgx])?;
    // The kernel does not know where wgx is: the handshake has to come from here, under the new key.
    two_from_server(pair).context("the key of wgx")?;
    two_from_kernel(pair).context("the key of wgx, back")?;
    Ok(())
}

/// Inner sources outside the allowed IPs are refused, though their sender is authentic.
fn strange_sources_are_refused(pair: &Pair) -> Result<()> {
    let before = pair.status()?;
    pair.guest.run("ip address add 10.10.0.200/32 dev wg0")?;
    let line = format!("ping -n -c 3 -i 0.1 -W 1 -I 10.10.0.200 {}", Pair::server(Family::V4));
    let reply = pair.guest.attempt(&line, SOON * 2)?;
    ensure!(reply.code != 0, "answered: {}", reply.output);
    let dropped = || Ok::<_, anyhow::Error>(pair.status()?.since(&before).verdict("drop_source_not_allowed"));
    wait_until("three packets of a strange source are counted", SOON, || Ok(dropped()? >= 3))?;
    ensure!(dropped()? == 3, "{} packets of a strange source, not three", dropped()?);
    pair.guest.run("ip address del 10.10.0.200/32 dev wg0")?;
    pair.ping_from_kernel(Family::V4, "-c 1")?;
    Ok(())
}

/// Another port, another address, the other family: `wgx` answers to where the kernel's packets came from.
fn kernel_is_followed(pair: &Pair) -> Result<()> {
    pair.kernel().set("listen-port 9999")?;
    seen_by_wgx(pair, "192.0.2.13:9999").context("another port")?;
    pair.guest.run(&format!("ip address add 192.0.2.99/24 dev {GUEST_INTERFACE}"))?;
    pair.guest.run(&format!("ip address del 192.0.2.13/24 dev {GUEST_INTERFACE}"))?;
    // The second address of a network goes with the first, as if it had never been.
    pair.guest.attempt(&format!("ip address add 192.0.2.99/24 dev {GUEST_INTERFACE}"), SOON)?;
    seen_by_wgx(pair, "192.0.2.99:9999").context("another address")?;
    pair.set_on_kernel(&format!("endpoint {}", pair.gateway.endpoint(Family::V6)))?;
    seen_by_wgx(pair, "[2001:db8:1::d]:9999").context("the other family")?;
    pair.guest.run(&format!("ip address add 192.0.2.13/24 dev {GUEST_INTERFACE}"))?;
    pair.kernel().set(&format!("listen-port {LISTEN_PORT}"))?;
    pair.set_on_kernel(&format!("endpoint {}", pair.gateway.endpoint(Family::V4)))?;
    first_answer_to_kernel(pair).context("back again")
}

/// Pings until one is answered.
///
/// Workers learn from control where a peer is and under which session to answer it: an answer that is faster than
/// control still goes to where the peer was, under the session it had.
fn first_answer_to_kernel(pair: &Pair) -> Result<()> {
    let line = format!("ping -n -c 1 -W 1 {}", Pair::server(Family::V4));
    wait_until("the kernel is answered", SOON, || Ok(pair.guest.attempt(&line, SOON)?.code == 0))
}

fn seen_by_wgx(pair: &Pair, endpoint: &str) -> Result<()> {
    first_answer_to_kernel(pair)?;
    wait_until(&format!("wgx sees {endpoint}"), SOON, || Ok(pair.endpoints()?.1 == endpoint))
        .with_context(|| pair.gateway.show("endpoints").unwrap_or_default())?;
    two_from_server(pair)?;
    Ok(())
}

/// The kernel answers to where the packets of `wgx` come from.
fn wgx_is_followed(pair: &Pair) -> Result<()> {
    let Pair { gateway, site, .. } = pair;
    site.gateway.run(&format!("wg set {} listen-port 51999", gateway.interface))?;
    seen_by_kernel(pair, "192.0.2.1:51999").context("another port")?;
    site.gateway.ip(&format!("address add 192.0.2.77/24 dev {UPLINK}"))?;
    site.gateway.ip(&format!("address del 192.0.2.1/24 dev {UPLINK}"))?;
    let _ = site.gateway.ip(&format!("address add 192.0.2.77/24 dev {UPLINK}"));
    seen_by_kernel(pair, "192.0.2.77:51999").context("another address")?;
    site.gateway.ip(&format!("address add 192.0.2.1/24 dev {UPLINK}"))?;
    site.gateway.run(&format!("wg set {} listen-port {LISTEN_PORT}", gateway.interface))?;
    pair.set_on_kernel(&format!("endpoint {}", gateway.endpoint(Family::V4)))?;
    first_answer_to_kernel(pair).context("back again")
}

fn seen_by_kernel(pair: &Pair, endpoint: &str) -> Result<()> {
    pair.ping_from_server(Family::V4, "-c 1")?;
    wait_until(&format!("the kernel sees {endpoint}"), SOON, || Ok(pair.endpoints()?.0 == endpoint))
        .with_context(|| pair.kernel().show("endpoints").unwrap_or_default())?;
    two_from_kernel(pair)?;
    Ok(())
}

/// One at once when they are switched on, then one a second, and nothing else.
fn keepalives_are_sent_and_counted(lab: &Lab, pair: &mut Pair) -> Result<()> {
    let cell = Cell { role: Role::Initiator, outer: Family::V6, inner: Family::V6, psk: false };
    pair.meet(lab, cell)?;
    pair.ping_from_kernel(Family::V6, "-c 1")?;
    let start = pair.agreed_transfer()?;
    pair.set_on_wgx("persistent-keepalive 1")?;
    wait_until("three keepalives of wgx", SOON, || {
        Ok(pair.transfers()?.0.rx >= start.rx + 3 * KEEPALIVE_LEN)
    })?;
    pair.set_on_wgx("persistent-keepalive 0")?;
    let middle = pair.agreed_transfer()?;
    ensure!((middle.rx - start.rx).is_multiple_of(KEEPALIVE_LEN), "{start:?}, then {middle:?}");
    // The reply to the ping was data: on a slow machine the kernel acknowledges it meanwhile, after ten seconds.
    let passive = middle.tx - start.tx;
    ensure!(passive <= KEEPALIVE_LEN, "the kernel answered keepalives: {start:?}, then {middle:?}");

    pair.set_on_kernel("persistent-keepalive 1")?;
    wait_until("three keepalives of the kernel", SOON, || {
        Ok(pair.transfers()?.1.rx >= middle.tx + 3 * KEEPALIVE_LEN)
    })?;
    pair.set_on_kernel("persistent-keepalive 0")?;
    let end = pair.agreed_transfer()?;
    ensure!((end.tx - middle.tx).is_multiple_of(KEEPALIVE_LEN), "{middle:?}, then {end:?}");
    ensure!(end.rx == middle.rx, "wgx answered a keepalive: {middle:?}, then {end:?}");
    Ok(())
}
