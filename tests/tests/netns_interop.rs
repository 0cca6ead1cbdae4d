//! `wgx` and other implementations: the interop matrix, and what each of them has to be able to do with `wgx`.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    Io, Lab,
    interop::Role,
    iperf::{self, Direction},
    peer::{Cell, Connection, Pair, Program, Recorder, message_type, payload_lens},
    ping,
    site::{Family, SERVER_HOST, server_side},
    wait_until,
};

/// A peer that fails this often is broken, and each failure takes its time-outs.
const MAX_FAILURES: usize = 3;

/// A test of each function for each peer, on each rung.
macro_rules! with_every_peer {
    (@rung $module:ident, $program:expr, $rung:ident, $io:expr, $($name:ident)+) => {
        mod $rung {
            $(#[test] fn $name() {
                let name = concat!(stringify!($module), "::", stringify!($rung), "::", stringify!($name));
                tests::scenario_with_peer(name, $program, |lab| super::super::$name(lab, $program, $io));
            })+
        }
    };
    ($($name:ident,)+) => {
        with_every_peer! { @peer wireguard_go, tests::peer::Program::WireguardGo, $($name)+ }
        with_every_peer! { @peer boringtun, tests::peer::Program::Boringtun, $($name)+ }
        with_every_peer! { @peer gotatun, tests::peer::Program::Gotatun, $($name)+ }
    };
    (@peer $module:ident, $program:expr, $($name:ident)+) => {
        mod $module {
            with_every_peer! { @rung $module, $program, af_xdp, tests::Io::AfXdp, $($name)+ }
            with_every_peer! { @rung $module, $program, udp, tests::Io::Udp, $($name)+ }
        }
    };
}

with_every_peer! {
    every_cell_of_the_matrix_works,
    peer_that_roams_is_followed,
    lost_session_is_replaced_by_a_new_handshake,
    restarted_peer_is_served_again,
    bulk_flows_both_ways,
    keepalives_of_both_sides_cross,
    ecn_marks_cross_in_both_directions,
    data_is_padded_and_indices_differ,
}

fn every_cell_of_the_matrix_works(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let version = program.version()?;
    let mut pair = Pair::start(lab, program, io)?;
    let mut failures = Vec::new();
    for cell in Cell::all() {
        if let Err(error) = cell.run(&mut pair, lab, &version) {
            failures.push(format!("{cell}: {error:#}"));
            if failures.len() >= MAX_FAILURES {
                break;
            }
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

/// To another port of its own, where the peer can do that; then behind a NAT, to another address and port.
fn peer_that_roams_is_followed(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let pair = Pair::connected(lab, program, io)?;
    if program.can_be_reconfigured() {
        pair.remote.set("listen-port 40001")?;
        check_followed(&pair, "192.0.2.11:40001")?;
    }
    let client = &pair.remote.namespace;
    client.ip("address add 192.0.2.77/24 dev eth0")?;
    client.run("nft add table ip roam")?;
    client.run("nft add chain ip roam out { type nat hook postrouting priority 100 ; }")?;
    client.run("nft add rule ip roam out udp dport 51820 snat to 192.0.2.77:40002")?;
    check_followed(&pair, "192.0.2.77:40002")
}

fn check_followed(pair: &Pair, endpoint: &str) -> Result<()> {
    pair.wait_for_reply(Role::Initiator, Family::V4)?;
    wait_until(&format!("the gateway knows {endpoint}"), Duration::from_secs(10), || {
        Ok(pair.gateway_state()?.endpoint == Some(endpoint.parse()?))
    })?;
    pair.exchange_both_ways()
}

fn lost_session_is_replaced_by_a_new_handshake(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let mut pair = Pair::connected(lab, program, io)?;
    let (to_remote, to_gateway) = (pair.remote.endpoint(Family::V4), pair.gateway.endpoint(Family::V4));

    // The gateway forgets: what it is asked to send takes a handshake, and the peer has to accept that.
    pair.set_gateway(&format!("peer {} remove", pair.remote.keys.public))?;
    ensure!(!ping::once(&pair.site.server, pair.remote.inner.v4.into())?, "a removed peer is reached");
    pair.configure_gateway(lab, Some(to_remote))?;
    pair.first_ping(Role::Responder, Family::V6).context("after the gateway forgot")?;
    pair.exchange_both_ways()?;

    // The peer forgets.
    let public = pair.gateway.keys.public.clone();
    pair.remote.forget_and_add(lab, &public, Some(to_gateway))?;
    pair.first_ping(Role::Initiator, Family::V4).context("after the peer forgot")?;
    pair.exchange_both_ways()?;

    // The gateway changes its key, and the peer is told.
    pair.gateway.keys = tests::keys::Keys::generate()?;
    pair.configure_gateway(lab, None)?;
    pair.remote.forget(&public)?;
    pair.remote.add(lab, &pair.gateway.keys.public, Some(to_gateway))?;
    pair.first_ping(Role::Initiator, Family::V6).context("after a change of the key")?;
    pair.exchange_both_ways()
}

fn restarted_peer_is_served_again(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let mut pair = Pair::connected(lab, program, io)?;
    let (public, endpoint) = (pair.gateway.keys.public.clone(), pair.gateway.endpoint(Family::V4));
    pair.remote.restart(lab, &public, Some(endpoint))?;
    pair.wait_for_reply(Role::Initiator, Family::V4)?;
    pair.exchange_both_ways()
}

fn bulk_flows_both_ways(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let pair = Pair::connected(lab, program, io)?;
    let _server = pair.site.start_iperf(lab)?;
    let server = server_side(SERVER_HOST);
    for direction in Direction::BOTH {
        let tcp = iperf::tcp(&pair.remote.namespace, server.v4.into(), direction, 1)?;
        ensure!(tcp.bits_per_second > 1e6, "TCP, {direction:?}: {tcp:?}");
        let udp = iperf::udp_lossless(lab, &pair.remote.namespace, server.v6.into(), direction, 2, 1000)?;
        ensure!(udp.packets > 100, "UDP, {direction:?}: {udp:?}");
    }
    Ok(())
}

fn keepalives_of_both_sides_cross(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let mut pair = Pair::connected(lab, program, io)?;
    let mut from_gateway = Recorder::to_peer(lab, &pair.site)?;
    pair.set_gateway(&format!("peer {} persistent-keepalive 1", pair.remote.keys.public))?;
    let is_keepalive = |message: &&Vec<u8>| message_type(message) == Some(4) && message.len() == 32;
    from_gateway.wait_for("two keepalives of the gateway", |messages| {
        messages.iter().filter(is_keepalive).count() >= 2
    })?;
    pair.set_gateway(&format!("peer {} persistent-keepalive 0", pair.remote.keys.public))?;

    let (public, endpoint) = (pair.gateway.keys.public.clone(), pair.gateway.endpoint(Family::V4));
    pair.remote.persistent_keepalive = 1;
    pair.remote.forget_and_add(lab, &public, Some(endpoint))?;
    pair.wait_for_reply(Role::Initiator, Family::V4)?;
    let before = pair.gateway_state()?.rx_bytes;
    wait_until("two keepalives of the peer are counted", Duration::from_secs(15), || {
        let grown = pair.gateway_state()?.rx_bytes - before;
        ensure!(grown.is_multiple_of(32), "{grown} bytes came with keepalives");
        Ok(grown >= 64)
    })
}

/// RFC 6040, as far as one side can do it: none of these peers looks at ECN.
fn ecn_marks_cross_in_both_directions(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    let pair = Pair::connected(lab, program, io)?;
    let (client, server) = (&pair.remote.namespace, &pair.site.server);
    let server_address = server_side(SERVER_HOST).v4;

    let to_peer = Recorder::to_peer(lab, &pair.site)?;
    // DSCP AF41 and ECT(0) inside.
    server.run(&format!("ping -n -c 3 -i 0.02 -W 4 -Q 0x8a {}", pair.remote.inner.v4))?;
    wait_until("the outer header has the mark and nothing else", Duration::from_secs(10), || {
        let tos: Vec<_> = to_peer.frames()?.iter().filter_map(|frame| frame.get(15).copied()).collect();
        ensure!(tos.iter().all(|tos| [0, ECT_0].contains(tos)), "outer TOS {tos:?}");
        let marked: Vec<_> = tos.iter().filter(|tos| **tos == ECT_0).collect();
        Ok(marked.len() >= 3)
    })?;

    // A router on the way is congested.
    client.run("nft add table ip congestion")?;
    client.run("nft add chain ip congestion out { type filter hook output priority 0 ; }")?;
    client.run("nft add rule ip congestion out oifname eth0 udp dport 51820 ip ecn set ce")?;
    let at_server = Recorder::start(lab, server, "eth0", "in", "icmp[icmptype] == icmp-echo")?;
    let outcome = client
        .attempt(&format!("ping -n -c 3 -i 0.02 -W 4 -Q 2 {server_address}"), Duration::from_secs(20))?;
    ensure!(outcome.status.success(), "{}", outcome.stdout);
    wait_until("the server sees the mark", Duration::from_secs(10), || {
        let tos: Vec<_> = at_server.frames()?.iter().filter_map(|frame| frame.get(15).copied()).collect();
        ensure!(tos.iter().all(|tos| *tos == CE), "inner TOS {tos:?}");
        Ok(tos.len() >= 3)
    })?;
    // A packet that cannot carry the mark is dropped, and counted.
    let before = pair.gateway.status()?;
    ensure!(!ping::once(client, server_address.into())?, "a packet that is not ECN-capable lost its mark");
    wait_until("the drop is counted", Duration::from_secs(20), || {
        Ok(pair.gateway.status()?.since(&before).verdict("drop_ecn") >= 1)
    })
}

/// What an eavesdropper sees of `wgx`, over several sessions.
fn data_is_padded_and_indices_differ(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let mut pair = Pair::start(lab, program, io)?;
    let mut to_peer = Recorder::to_peer(lab, &pair.site)?;
    let mut from_peer = Recorder::from_peer(lab, &pair.site)?;
    let mut sent_count = 0;
    for role in [Role::Initiator, Role::Responder, Role::Initiator, Role::Responder] {
        pair.connect(lab, Connection { role, outer: Family::V4, psk: false })?;
        pair.first_ping(role, Family::V4)?;
        let lens = payload_lens(Family::V4, 1420);
        pair.echo(Family::V4)?.exchange(&lens)?;
        sent_count += lens.len() + 1;
    }
    let is_data = |message: &&Vec<u8>| message_type(message) == Some(4);
    let sent = to_peer
        .wait_for("all data is recorded", |messages| messages.iter().filter(is_data).count() >= sent_count)?;
    for message in sent.iter().filter(is_data) {
        let inner_len = message.len() - 32;
        ensure!(inner_len.is_multiple_of(16) || inner_len == 1420, "{} bytes of data", message.len());
    }
    // The index the gateway gave itself is in its handshake messages, and in all that is sent to it.
    let given: Vec<_> = sent
        .iter()
        .filter(|message| matches!(message_type(message), Some(1 | 2)))
        .map(|message| message[4..8].to_vec())
        .collect();
    let distinct: BTreeSet<_> = given.iter().collect();
    ensure!(given.len() == 4 && distinct.len() == 4, "indices of four sessions: {given:02x?}");
    let received = from_peer.wait_for("all answers are recorded", |messages| {
        messages.iter().filter(is_data).count() >= sent_count
    })?;
    let used: BTreeSet<_> = received.iter().filter(is_data).map(|message| message[4..8].to_vec()).collect();
    ensure!(used == given.iter().cloned().collect(), "given {given:02x?}, used {used:02x?}");
    Ok(())
}
