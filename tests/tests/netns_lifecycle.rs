//! Start, reconfiguration and end of the gateway: what it changes, and that it undoes it however it ends.

use std::{net::UdpSocket, os::unix::process::ExitStatusExt, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tests::{
    Gateway, Implementation, Io, Process, Site, World,
    gateway::START_TIMEOUT,
    ping, scenario, scenario_with_wgx,
    site::{Family, LISTEN_PORT, SERVER_HOST, server_side},
    wait_until,
};

const AUTO: Implementation = Implementation::Wgx(Io::Auto);

/// A client sends into a dead session for 15 s before it starts a new one.
const CLIENT_NOTICES: Duration = Duration::from_secs(45);

/// Nothing of the gateway is left but, when it was killed, the files of its sockets.
fn check_undone(gateway: &Gateway) -> Result<()> {
    // The kernel takes down what belonged to file descriptors a moment after the process is gone.
    wait_until("no XDP program is attached", Duration::from_secs(20), || {
        Ok(gateway.xdp_interfaces()?.is_empty())
    })?;
    wait_until("the tunnel interface is gone", Duration::from_secs(20), || Ok(!gateway.has_interface()?))?;
    let listeners = gateway.namespace.run("ss -Hlun")?;
    ensure!(!listeners.contains(&format!(":{LISTEN_PORT} ")), "still listening: {listeners}");
    let bpf = gateway.namespace.run("bpftool net show")?;
    ensure!(!bpf.contains("uplink") && !bpf.contains("downlink"), "{bpf}");
    Ok(())
}

fn sockets(gateway: &Gateway) -> Vec<std::path::PathBuf> {
    ["/run/wireguard", "/run/wgx"]
        .into_iter()
        .map(|folder| Path::new(folder).join(&gateway.interface).with_extension("sock"))
        .filter(|socket| socket.exists())
        .collect()
}

#[test]
fn killed_gateway_leaves_no_xdp_program_and_restarts_at_once() {
    scenario_with_wgx("killed_gateway_leaves_no_xdp_program_and_restarts_at_once", |lab| {
        let mut world = World::build(lab, AUTO)?;
        ensure!(!world.gateway.xdp_interfaces()?.is_empty(), "no XDP program was attached");
        world.gateway.kill()?;
        check_undone(&world.gateway)?;

        world.gateway.start(lab)?;
        // The clients find it again by themselves.
        world.settle(CLIENT_NOTICES)?;
        tests::traffic::ping_crosses(&world)
    });
}

#[test]
fn sigterm_and_sigint_undo_everything_and_exit_zero() {
    scenario_with_wgx("sigterm_and_sigint_undo_everything_and_exit_zero", |lab| {
        let mut world = World::build(lab, AUTO)?;
        let links = |world: &World| world.site.gateway.ip("-oneline link show");
        for signal in [Signal::TERM, Signal::INT] {
            let process = world.gateway.process()?;
            process.signal(signal)?;
            let status = process.wait(START_TIMEOUT)?;
            ensure!(status.success(), "{signal:?}: {status}");
            check_undone(&world.gateway)?;
            ensure!(sockets(&world.gateway).is_empty(), "left: {:?}", sockets(&world.gateway));
            let before = links(&world)?;
            world.gateway.start(lab)?;
            ensure!(
                links(&world)?.lines().count() == before.lines().count() + 1,
                "{before}\n{}",
                links(&world)?
            );
        }
        Ok(())
    });
}

#[test]
fn wg_set_and_syncconf_take_effect() {
    scenario_with_wgx("wg_set_and_syncconf_take_effect", |lab| {
        let world = World::build(lab, AUTO)?;
        let (gateway, client) = (&world.gateway, &world.clients[0]);
        let server = server_side(SERVER_HOST).v4.into();
        let set = |what: &str| gateway.namespace.run(&format!("wg set {} {what}", gateway.interface));
        let key = &client.keys.public;

        set(&format!("peer {key} persistent-keepalive 25"))?;
        ensure!(
            gateway.show("persistent-keepalive")?.contains(&format!("{key}\t25")),
            "keepalive is not shown"
        );

        set(&format!("peer {key} remove"))?;
        ensure!(!gateway.show("peers")?.contains(key), "a removed peer is shown");
        ensure!(!ping::once(&client.namespace, server)?, "a removed peer still gets through");
        ping::all_answered(&world.clients[1].namespace, server, 5)?;

        let file = lab.write_secret("sync.conf", &gateway.configuration())?;
        gateway.namespace.run(&format!("wg syncconf {} {}", gateway.interface, file.display()))?;
        ping::wait_for_reply(&client.namespace, server, CLIENT_NOTICES)?;
        // The other peer was in the file already: its session goes on.
        ping::all_answered(&world.clients[1].namespace, server, 5)?;

        set("listen-port 51999")?;
        ensure!(gateway.show("listen-port")?.trim() == "51999", "{}", gateway.show("listen-port")?);
        let mut endpoint = gateway.endpoint(Family::V4);
        endpoint.set_port(51999);
        client.move_to(gateway, endpoint)?;
        ping::wait_for_reply(&client.namespace, server, CLIENT_NOTICES)?;
        ping::all_answered(&client.namespace, server, 10)
    });
}

#[test]
fn allowed_ips_say_who_may_send_what() {
    scenario_with_wgx("allowed_ips_say_who_may_send_what", |lab| {
        let world = World::build(lab, AUTO)?;
        let (gateway, client) = (&world.gateway, &world.clients[0]);
        let server = server_side(SERVER_HOST);
        let line = format!(
            "wg set {} peer {} allowed-ips {}/32",
            gateway.interface, client.keys.public, client.inner.v4
        );
        gateway.namespace.run(&line)?;
        ping::all_answered(&client.namespace, server.v4.into(), 5)?;
        let before = gateway.status()?;
        ensure!(
            !ping::once(&client.namespace, server.v6.into())?,
            "a source that is not allowed gets through"
        );
        wait_until("the drop is counted", Duration::from_secs(20), || {
            Ok(gateway.status()?.since(&before).verdict("drop_source_not_allowed") >= 1)
        })
    });
}

#[test]
fn listen_port_in_use_is_refused_and_changes_nothing() {
    scenario_with_wgx("listen_port_in_use_is_refused_and_changes_nothing", |lab| {
        let world = World::build(lab, AUTO)?;
        let gateway = &world.gateway;
        let _taken = gateway.namespace.enter(|| UdpSocket::bind(("0.0.0.0", 51_999)))??;
        let line = format!("wg set {} listen-port 51999", gateway.interface);
        let outcome = gateway.namespace.attempt(&line, START_TIMEOUT)?;
        ensure!(!outcome.status.success(), "`{line}` worked");
        ensure!(outcome.stderr.contains("Address already in use"), "{}", outcome.stderr);
        ensure!(
            gateway.show("listen-port")?.trim() == LISTEN_PORT.to_string(),
            "{}",
            gateway.show("listen-port")?
        );
        tests::traffic::ping_crosses(&world)
    });
}

#[test]
fn reference_clients_recover_from_a_gateway_restart() {
    scenario("reference_clients_recover_from_a_gateway_restart", |lab| {
        let mut world = World::build(lab, Implementation::WireguardGo)?;
        world.gateway.kill()?;
        world.gateway.start(lab)?;
        world.settle(CLIENT_NOTICES)
    });
}

/// Ends a process as a panic does, and tells whether the kernel wrote a core dump.
fn is_dumped(process: &mut Process) -> Result<bool> {
    process.signal(Signal::ABORT)?;
    Ok(process.wait(START_TIMEOUT)?.core_dumped())
}

#[test]
fn keys_are_locked_in_memory_and_never_in_a_core_dump() {
    scenario_with_wgx("keys_are_locked_in_memory_and_never_in_a_core_dump", |lab| {
        let limits = getrlimit(Resource::Core);
        setrlimit(Resource::Core, Rlimit { current: limits.maximum, maximum: limits.maximum })?;
        let site = Site::build(lab, 1)?;
        let mut gateway = Gateway::new(lab, &site, AUTO)?;
        gateway.start(lab)?;
        let mut other = lab.spawn("sleep", site.wan.command("sleep").arg("60").current_dir(lab.folder()))?;
        setrlimit(Resource::Core, limits)?;

        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process()?.pid()))?;
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).context("no VmLck line")?;
        let kilobytes: u64 = locked.trim().trim_end_matches(" kB").parse()?;
        ensure!(kilobytes > 0, "no memory is locked: {status}");
        ensure!(
            is_dumped(&mut other)?,
            "this machine writes no core dumps at all, so this test shows nothing"
        );
        ensure!(!is_dumped(gateway.process()?)?, "the gateway's memory was written to a core dump");
        Ok(())
    });
}
