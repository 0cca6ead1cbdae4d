//! What the test suites of boringtun, gotatun and `NepTUN` promise of a tunnel, asked of `wgx` from outside.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use tests::{
    Io, Lab, Namespace, gateway,
    interop::Role,
    keys::{Keys, Secret},
    peer::{Cell, Connection, Pair, Program, Recorder, message_type},
    ping,
    site::{Family, SERVER_HOST, server_side},
    wait_until,
};

/// Makes a test on each rung of each function, with the peer it needs.
macro_rules! on_both_rungs {
    ($($peer:ident: $name:ident,)+) => {
        mod af_xdp {
            $(#[test] fn $name() {
                let name = concat!("af_xdp::", stringify!($name));
                let peer = tests::peer::Program::$peer;
                tests::scenario_with_peer(name, peer, |lab| super::$name(lab, peer, tests::Io::AfXdp));
            })+
        }
        mod udp {
            $(#[test] fn $name() {
                let name = concat!("udp::", stringify!($name));
                let peer = tests::peer::Program::$peer;
                tests::scenario_with_peer(name, peer, |lab| super::$name(lab, peer, tests::Io::Udp));
            })+
        }
    };
}

on_both_rungs! {
    WireguardGo: configuration_is_read_back,
    Boringtun: peer_without_connected_sockets_works,
    WireguardGo: concurrent_streams_arrive_whole,
    WireguardGo: one_datagram_takes_one_handshake_and_one_keepalive,
    WireguardGo: source_owned_by_another_peer_is_refused,
    WireguardGo: changed_preshared_key_reaches_the_tunnel,
    WireguardGo: largest_datagram_is_carried_and_harmless,
}

/// boringtun's `wireguard_set` and `wireguard_get`.
fn configuration_is_read_back(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let mut pair = Pair::start(lab, program, io)?;
    pair.connect(lab, Connection { role: Role::Responder, outer: Family::V6, psk: true })?;
    pair.set_gateway(&format!("peer {} persistent-keepalive 25", pair.remote.keys.public))?;
    let state = pair.gateway_state()?;
    ensure!(state.endpoint == Some(pair.remote.endpoint(Family::V6)), "{state:?}");
    ensure!(state.persistent_keepalive == 25, "{state:?}");
    let mut allowed_ips = state.allowed_ips;
    allowed_ips.sort();
    ensure!(allowed_ips == pair.remote.as_peer().allowed_ips, "{allowed_ips:?}");
    let shown = pair.gateway.show("preshared-keys")?;
    let key = pair.remote.preshared_key.as_ref().context("a preshared key")?;
    ensure!(shown.contains(key.reveal()), "the preshared key is another one");
    ensure!(pair.gateway.show("public-key")?.trim() == pair.gateway.keys.public, "the key is another one");
    Ok(())
}

/// boringtun's `start_ipv4_non_connected` and `ipv6_endpoint_not_connected`.
fn peer_without_connected_sockets_works(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let version = program.version()?;
    let mut pair = Pair::start_with(lab, program, &["--disable-connected-udp"], io)?;
    for cell in Cell::all().into_iter().filter(|cell| cell.connection.psk) {
        cell.run(&mut pair, lab, &version).with_context(|| cell.to_string())?;
    }
    Ok(())
}

/// boringtun's `concurrent` and `concurrent_v6`.
fn concurrent_streams_arrive_whole(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    const STREAMS: usize = 8;
    let pair = Pair::connected(lab, program, io)?;
    for family in Family::BOTH {
        let address = server_side(SERVER_HOST).of(family);
        let listener = pair.site.server.enter(|| TcpListener::bind((address, 0)))??;
        let to = listener.local_addr()?;
        thread::scope(|scope| -> Result<()> {
            let server = scope.spawn(|| serve(&listener, STREAMS));
            let clients: Vec<_> = (1..=STREAMS)
                .map(|number| (number, &pair.remote.namespace))
                .map(|(number, namespace)| {
                    scope.spawn(move || fetch(namespace, to, 10_000 * number + number))
                })
                .collect();
            for client in clients {
                client.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            server.join().map_err(|_| anyhow!("the server panicked"))?
        })
        .with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

/// Answers each stream with as many bytes as it asks for.
fn serve(listener: &TcpListener, stream_count: usize) -> Result<()> {
    // One that never comes must not keep us: the accept ends with the clients.
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    let mut served = 0;
    while served < stream_count {
        ensure!(start.elapsed() < Duration::from_secs(40), "{served} of {stream_count} streams came");
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut asked = [0; 4];
        stream.read_exact(&mut asked)?;
        stream.write_all(&body(u32::from_be_bytes(asked) as usize))?;
        served += 1;
    }
    Ok(())
}

fn fetch(namespace: &Namespace, to: std::net::SocketAddr, len: usize) -> Result<()> {
    let mut stream =
        namespace.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(20)))?.context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&(len as u32).to_be_bytes())?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    ensure!(received == body(len), "{} bytes came, not the {len} that were asked for", received.len());
    Ok(())
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index ^ (index >> 8) ^ len) as u8).collect()
}

/// gotatun's `one_handshake` and `one_keepalive`, counted on the wire.
fn one_datagram_takes_one_handshake_and_one_keepalive(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let mut pair = Pair::start(lab, program, io)?;
    pair.connect(lab, Connection { role: Role::Initiator, outer: Family::V4, psk: false })?;
    let from_peer = Recorder::from_peer(lab, &pair.site)?;
    let mut to_peer = Recorder::to_peer(lab, &pair.site)?;
    let server = server_side(SERVER_HOST).v4;
    let silent = pair.site.server.enter(|| UdpSocket::bind((server, 0)))??;
    let sender = pair.remote.namespace.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    sender.send_to(&[7; 100], silent.local_addr()?)?;
    silent.set_read_timeout(Some(Duration::from_secs(10)))?;
    silent.recv(&mut [0; 128]).context("the datagram did not arrive")?;

    // The gateway owes a sign of life ten seconds after data it did not answer.
    to_peer.wait_for("a response and a keepalive", |messages| messages.len() >= 2)?;
    thread::sleep(Duration::from_secs(2));
    let shape = |recorder: &Recorder| -> Result<Vec<_>> {
        Ok(recorder.messages()?.iter().map(|message| (message_type(message), message.len())).collect())
    };
    let (sent, received) = (shape(&to_peer)?, shape(&from_peer)?);
    ensure!(sent == [(Some(2), 92), (Some(4), 32)], "the gateway sent {sent:?}");
    ensure!(received == [(Some(1), 148), (Some(4), 32 + 128)], "the peer sent {received:?}");
    Ok(())
}

/// gotatun's `reverse_path_rejects_source_owned_by_another_peer`.
fn source_owned_by_another_peer_is_refused(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let owned: [IpAddr; 2] = ["10.10.0.77".parse()?, "fd10:10::77".parse()?];
    let mut pair = Pair::start(lab, program, io)?;
    pair.connect(lab, Connection { role: Role::Initiator, outer: Family::V4, psk: false })?;
    pair.gateway.peers.push(gateway::Peer {
        public_key: Keys::generate()?.public,
        preshared_key: None,
        allowed_ips: vec![format!("{}/32", owned[0]), format!("{}/128", owned[1])],
    });
    pair.configure_gateway(lab, None)?;
    pair.wait_for_reply(Role::Initiator, Family::V4)?;
    let client = &pair.remote.namespace;
    for (family, stolen) in Family::BOTH.into_iter().zip(owned) {
        client.add_address(&pair.remote.interface, stolen, if stolen.is_ipv4() { 32 } else { 128 })?;
        let before = pair.gateway.status()?;
        let server = server_side(SERVER_HOST).of(family);
        let line = format!("ping -n -c 3 -i 0.05 -W 1 -I {stolen} {server}");
        let outcome = client.attempt(&line, Duration::from_secs(20))?;
        ensure!(!outcome.status.success(), "`{line}` was answered");
        wait_until("refused sources are counted", Duration::from_secs(20), || {
            Ok(pair.gateway.status()?.since(&before).verdict("drop_source_not_allowed") >= 3)
        })?;
        // Of several addresses the kernel may prefer the stolen one.
        client.ip(&format!("address del {stolen} dev {}", pair.remote.interface))?;
    }
    pair.exchange_both_ways()
}

/// gotatun's `modify_peer_preshared_key_reaches_tunnel`.
fn changed_preshared_key_reaches_the_tunnel(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let mut pair = Pair::connected(lab, program, io)?;
    let (public, endpoint) = (pair.gateway.keys.public.clone(), pair.gateway.endpoint(Family::V4));
    let key = Secret::preshared()?;
    let file = lab.write_secret("psk", key.reveal())?;
    pair.set_gateway(&format!("peer {} preshared-key {}", pair.remote.keys.public, file.display()))?;

    let server = server_side(SERVER_HOST).v4.into();
    pair.remote.forget_and_add(lab, &public, Some(endpoint))?;
    for _ in 0..3 {
        ensure!(!ping::once(&pair.remote.namespace, server)?, "a handshake without the key was accepted");
    }
    pair.remote.preshared_key = Some(key);
    pair.remote.forget_and_add(lab, &public, Some(endpoint))?;
    pair.wait_for_reply(Role::Initiator, Family::V4)?;

    // And away again.
    pair.set_gateway(&format!("peer {} preshared-key /dev/null", pair.remote.keys.public))?;
    pair.remote.preshared_key = None;
    pair.remote.forget_and_add(lab, &public, Some(endpoint))?;
    pair.wait_for_reply(Role::Initiator, Family::V6)?;
    pair.exchange_both_ways()
}

/// gotatun's `udp_oversized_datagram`, and the same inside the tunnel, in fragments.
fn largest_datagram_is_carried_and_harmless(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    const LARGEST: usize = 65_507;
    let mut pair = Pair::connected(lab, program, io)?;
    pair.echo(Family::V4)?.exchange(&[LARGEST, 9000])?;
    for family in Family::BOTH {
        let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
        let socket = pair.remote.namespace.enter(|| UdpSocket::bind(any))??;
        for kind in 0..=5 {
            let mut datagram = vec![0xa5; LARGEST];
            datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
            socket.send_to(&datagram, pair.gateway.endpoint(family))?;
        }
    }
    pair.exchange_both_ways()?;
    pair.gateway.process()?.check_running()
}
