//! What the kernel's own WireGuard test asks of interfaces that come, go and are down, and of keys that are no keys.
//! N1 to N34 number the scenarios of netns.sh; VPP's are named.

use std::{collections::BTreeSet, fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{
    Capture, Implementation, Io, Lab, Namespace, Tunnel, World,
    gateway::START_TIMEOUT,
    lab::LinkEnd,
    on_both_rungs, ping,
    site::{Family, GATEWAY_HOST, SERVER_HOST, inner, server_side},
    tunnel::Program,
    wait_until,
};

on_both_rungs! {
    n24_persistent_keepalives_begin_when_the_link_comes_up_or_the_key_is_set,
    n33_peers_with_public_keys_of_low_order_are_sent_nothing,
    n34_an_ended_gateway_leaves_no_bpf_object_netdev_or_file,
    vpp_nothing_is_sent_or_answered_while_the_link_is_down,
}

/// The u-coordinates of small order on Curve25519 and its twist, below 2^255, in base64.
const LOW_ORDER: [&str; 7] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=",
    "X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEVc=",
    "7P///////////////////////////////////////38=",
    "7f///////////////////////////////////////38=",
    "7v///////////////////////////////////////38=",
];

/// A namespace with `wgx` in it, one link, and a host at its other end that listens to nothing.
struct Lonely {
    ours: Tunnel,
    other: Namespace,
}

fn lonely(lab: &mut Lab, io: Io) -> Result<Lonely> {
    let (namespace, other) = (lab.namespace("ours")?, lab.namespace("other")?);
    let ends = |namespace, interface| LinkEnd { namespace, interface };
    lab.link(ends(&namespace, "uplink"), ends(&other, "eth0"), 1)?;
    for (namespace, interface, host) in [(&namespace, "uplink", 1), (&other, "eth0", 2)] {
        namespace.add_address(interface, format!("192.0.2.{host}").parse()?, 24)?;
        namespace.add_address(interface, format!("2001:db8:1::{host}").parse()?, 64)?;
    }
    let mode = io.to_string();
    let mut options = vec!["--io", mode.as_str()];
    if io == Io::AfXdp {
        options.extend(["--uplink", "uplink"]);
    }
    let ours = Tunnel::start(lab, &namespace, "ours", Program::Wgx(&options))?;
    Ok(Lonely { ours, other })
}

fn n24_persistent_keepalives_begin_when_the_link_comes_up_or_the_key_is_set(
    lab: &mut Lab,
    io: Io,
) -> Result<()> {
    let Lonely { ours, .. } = lonely(lab, io)?;
    let peer = tests::keys::Keys::generate()?.public;
    let key = lab.write_secret("ours.key", ours.keys.private.reveal())?;
    let sent = || Ok::<_, anyhow::Error>(ours.wg().transfer(&peer)?.tx);
    for endpoint in ["192.0.2.2:9", "[2001:db8:1::2]:9"] {
        // First the key, then up.
        let line = format!("peer {peer} endpoint {endpoint} persistent-keepalive 25");
        ours.wg().set(&format!("private-key {} {line}", key.display()))?;
        ensure!(sent()? == 0, "{endpoint}: sent while down");
        ours.namespace.ip(&format!("link set {} up", ours.interface))?;
        wait_until("a keepalive is tried when the link comes up", Duration::from_secs(20), || {
            Ok(sent()? > 0)
        })?;
        // First up, then the key.
        ours.wg().set(&format!("private-key /dev/null peer {peer} remove"))?;
        ours.wg().set(&line)?;
        ensure!(sent()? == 0, "{endpoint}: sent without a key");
        ours.wg().set(&format!("private-key {}", key.display()))?;
        wait_until("a keepalive is tried when the key is set", Duration::from_secs(20), || Ok(sent()? > 0))?;
        ours.namespace.ip(&format!("link set {} down", ours.interface))?;
        ours.wg().set(&format!("peer {peer} remove"))?;
        // Unlike the kernel's, it hears of its link by a message.
        wait_until("it knows that the link is down", Duration::from_secs(20), || {
            Ok(!ours.status()?.value()["up"].as_bool().context("it says so")?)
        })?;
    }
    Ok(())
}

fn n33_peers_with_public_keys_of_low_order_are_sent_nothing(lab: &mut Lab, io: Io) -> Result<()> {
    let Lonely { ours, other } = lonely(lab, io)?;
    let capture = Capture::start(lab, &other, "eth0", "udp")?;
    let peers: Vec<_> = LOW_ORDER
        .iter()
        .zip(1..)
        .map(|(key, n)| {
            let endpoint = if n % 2 == 0 { "[2001:db8:1::2]:1111" } else { "192.0.2.2:1111" };
            format!("peer {key} persistent-keepalive 1 endpoint {endpoint} allowed-ips 10.9.{n}.0/24")
        })
        .collect();
    ours.configure(lab, 1, &peers.join(" "), &["10.9.0.1/16"])?;
    for n in [1, 2] {
        ensure!(!ping::once(&ours.namespace, format!("10.9.{n}.1").parse()?)?, "answered");
    }
    thread::sleep(Duration::from_secs(2));
    let sent = capture.payloads()?;
    ensure!(sent.is_empty(), "{} datagrams: {:02x?}", sent.len(), sent[0]);
    // The recorder works, and so does a peer with a key of the large group.
    let peer = tests::keys::Keys::generate()?.public;
    ours.wg().set(&format!("peer {peer} persistent-keepalive 1 endpoint 192.0.2.2:1111"))?;
    wait_until("a good key is sent an initiation", Duration::from_secs(20), || {
        Ok(capture.payloads()?.iter().any(|datagram| datagram.len() == 148))
    })?;
    Ok(())
}

/// Identifiers of the kernel's BPF objects that a process holds: `(kind, id)`.
fn bpf_objects(pid: u32) -> Result<BTreeSet<(&'static str, String)>> {
    let mut objects = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines() {
            for (kind, field) in [("map", "map_id:"), ("prog", "prog_id:"), ("link", "link_id:")] {
                objects.extend(line.strip_prefix(field).map(|id| (kind, id.trim().to_owned())));
            }
        }
    }
    Ok(objects)
}

fn n34_an_ended_gateway_leaves_no_bpf_object_netdev_or_file(lab: &mut Lab, io: Io) -> Result<()> {
    let Lonely { mut ours, .. } = lonely(lab, io)?;
    ours.configure(lab, 51_820, "", &["10.9.0.1/16"])?;
    let links = |ours: &Tunnel| ours.namespace.ip("-oneline link show");
    let pid = ours.process().pid();
    // The command was entered into the namespace by `ip` and `setpriv`, which became it.
    ensure!(fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() == "wgx", "{pid} is not wgx");
    let objects = bpf_objects(pid)?;
    ensure!((io == Io::AfXdp) != objects.is_empty(), "{objects:?}");
    for (kind, id) in &objects {
        ours.namespace.run(&format!("bpftool {kind} show id {id}"))?;
    }
    let sockets = ["/run/wireguard", "/run/wgx"]
        .map(|folder| Path::new(folder).join(&ours.interface).with_extension("sock"));
    ensure!(sockets.iter().all(|socket| socket.exists()), "{sockets:?}");
    ensure!(links(&ours)?.contains(&ours.interface), "no tunnel interface");

    let status = ours.process().terminate(START_TIMEOUT)?;
    ensure!(status.success(), "{status}");
    for (kind, id) in &objects {
        wait_until(&format!("BPF {kind} {id} is gone"), Duration::from_secs(20), || {
            let outcome = ours.namespace.attempt(&format!("bpftool {kind} show id {id}"), START_TIMEOUT)?;
            Ok(!outcome.status.success())
        })?;
    }
    ensure!(sockets.iter().all(|socket| !socket.exists()), "{sockets:?}");
    ensure!(!links(&ours)?.contains(&ours.interface), "{}", links(&ours)?);
    ensure!(!links(&ours)?.contains("xdp"), "{}", links(&ours)?);
    let listening = ours.namespace.run("ss -Hlunw")?;
    ensure!(listening.trim().is_empty(), "{listening}");
    Ok(())
}

/// Also of the list of peers' mistakes: handshakes and data are not answered while the link is down.
fn vpp_nothing_is_sent_or_answered_while_the_link_is_down(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, [client, other]) = (&world.gateway, &world.clients[..]) else {
        anyhow::bail!("two clients")
    };
    gateway.wg().set(&format!("peer {} persistent-keepalive 1", client.keys.public))?;
    gateway.namespace.ip(&format!("link set {} down", gateway.interface))?;
    wait_until("the gateway knows that the link is down", Duration::from_secs(20), || {
        Ok(!gateway.status()?.value()["up"].as_bool().context("it says so")?)
    })?;
    // What was on its way has arrived.
    thread::sleep(Duration::from_millis(300));
    let sent = Capture::start(lab, &world.site.wan, "to-gateway", "udp src port 51820")?;
    // Data under the old session from one, an initiation from the other.
    other.namespace.ip(&format!("link set {} down", other.interface))?;
    other.namespace.ip(&format!("link set {} up", other.interface))?;
    for (from, to) in [
        (&client.namespace, inner(GATEWAY_HOST).v4.into()),
        (&other.namespace, inner(GATEWAY_HOST).v4.into()),
        (&world.site.server, client.inner.v4.into()),
    ] {
        ensure!(!ping::once(from, to)?, "answered while down");
    }
    // Keys and peers can be changed, and nothing comes of it yet.
    let key = lab.write_secret("same.key", gateway.keys.private.reveal())?;
    gateway.wg().set(&format!(
        "private-key {} peer {} persistent-keepalive 2",
        key.display(),
        other.keys.public
    ))?;
    thread::sleep(Duration::from_millis(1500));
    let sent = sent.stop()?;
    ensure!(sent.is_empty(), "{} datagrams: {:02x?}", sent.len(), sent[0]);

    gateway.namespace.ip(&format!("link set {} up", gateway.interface))?;
    gateway.namespace.add_address(&gateway.interface, inner(GATEWAY_HOST).v6.into(), 64)?;
    for client in &world.clients {
        ping::wait_for_reply(&gateway.namespace, client.inner.v4.into(), Duration::from_secs(15))
            .context("the link is up again")?;
    }
    for family in Family::BOTH {
        ping::wait_for_reply(&world.site.server, client.inner.of(family), Duration::from_secs(15))?;
        ping::all_answered(&world.site.server, client.inner.of(family), 5)?;
        ping::all_answered(&client.namespace, server_side(SERVER_HOST).of(family), 5)?;
    }
    Ok(())
}
