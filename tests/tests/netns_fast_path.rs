//! Which way packets take: what can go over AF_XDP does.

use std::{fs, net::UdpSocket, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::{
    Client, Gateway, Implementation, Io, Site, Status, World,
    gateway::START_TIMEOUT,
    iperf::{self, Direction},
    ping, scenario, scenario_with_wgx,
    site::{DOWNLINK, Family, SERVER_HOST, UPLINK, server_side},
    wait_until,
};

const AF_XDP: Implementation = Implementation::Wgx(Io::AfXdp);

/// Waits until next hops are resolved, so that not a packet has an excuse for the slow path.
fn wait_for_fast_path(world: &World) -> Result<()> {
    let server = server_side(SERVER_HOST);
    wait_until("pings leave the slow path", Duration::from_secs(10), || {
        let before = world.gateway.status()?;
        for client in &world.clients {
            for address in server.both() {
                ping::all_answered(&client.namespace, address, 2)?;
            }
        }
        Ok(world.gateway.status()?.since(&before).fast() >= world.clients.len() as u64 * 2 * 2 * 2)
    })
}

/// At least 95 of 100 packets went over AF_XDP, and there were at least `packet_count`.
fn check_fast(delta: &Status, packet_count: u64) -> Result<()> {
    let (fast, slow) = (delta.fast(), delta.slow());
    ensure!(
        fast >= packet_count,
        "only {fast} packets over AF_XDP, {packet_count} expected: {:?}",
        delta.verdicts()
    );
    ensure!(slow * 20 <= fast, "{slow} packets took the slow path: {:?}", delta.verdicts());
    Ok(())
}

#[test]
fn traffic_goes_over_af_xdp() {
    scenario_with_wgx("traffic_goes_over_af_xdp", |lab| {
        let world = World::build(lab, AF_XDP)?;
        let mut attached = world.gateway.xdp_interfaces()?;
        attached.sort();
        ensure!(attached == [DOWNLINK, UPLINK], "XDP programs on {attached:?}");
        let rung = world.gateway.status()?.rung().to_owned();
        ensure!(rung == "af-xdp", "the gateway is on the rung {rung:?}");
        wait_for_fast_path(&world)?;

        let _iperf = world.site.start_iperf(lab)?;
        let before = world.gateway.status()?;
        for (client, address) in world.clients.iter().zip(server_side(SERVER_HOST).both()) {
            for direction in Direction::BOTH {
                let udp = iperf::udp(&client.namespace, address, direction, 1, 8, 1000)?;
                ensure!(udp.lost == 0, "{udp:?}");
            }
        }
        // Four streams of 1000 packets: 8 Mb/s in packets of 1000 bytes for a second.
        check_fast(&world.gateway.status()?.since(&before), 4 * 900)
    });
}

#[test]
fn several_queues_carry_the_same() {
    scenario_with_wgx("several_queues_carry_the_same", |lab| {
        let world = World::build_with_queues(lab, AF_XDP, 2)?;
        tests::traffic::ping_crosses(&world)?;
        wait_for_fast_path(&world)?;
        let before = world.gateway.status()?;
        tests::traffic::tcp_and_udp_flow(&world, lab)?;
        check_fast(&world.gateway.status()?.since(&before), 1000)
    });
}

#[test]
fn packets_between_clients_stay_on_af_xdp() {
    scenario_with_wgx("packets_between_clients_stay_on_af_xdp", |lab| {
        let world = World::build(lab, AF_XDP)?;
        wait_for_fast_path(&world)?;
        let before = world.gateway.status()?;
        tests::traffic::clients_reach_each_other(&world, lab)?;
        let delta = world.gateway.status()?.since(&before);
        check_fast(&delta, 400)?;
        ensure!(delta.verdict("opened_to_peer") >= 400, "{:?}", delta.verdicts());
        Ok(())
    });
}

/// What puts off the interrupts of both interfaces, in sysfs's words.
fn deferral(gateway: &Gateway) -> Result<Vec<String>> {
    let mut values = Vec::new();
    for interface in [UPLINK, DOWNLINK] {
        for setting in ["napi_defer_hard_irqs", "gro_flush_timeout"] {
            let value = gateway.namespace.run(&format!("cat /sys/class/net/{interface}/{setting}"))?;
            values.push(value.trim().to_owned());
        }
    }
    Ok(values)
}

#[test]
fn polled_queues_carry_the_same_and_leave_no_setting_behind() {
    scenario_with_wgx("polled_queues_carry_the_same_and_leave_no_setting_behind", |lab| {
        let site = Site::build(lab, 1)?;
        let mut gateway = Gateway::new(lab, &site, AF_XDP)?;
        let mut client = Client::new(lab, &site, 1)?;
        gateway.expect(&client);
        gateway.options.push("--napi-busy-poll".to_owned());
        let before = deferral(&gateway)?;
        gateway.start(lab)?;
        client.start(lab, &gateway, gateway.endpoint(Family::V4))?;
        let mut world = World { clients: vec![client], gateway, site };
        world.settle(START_TIMEOUT)?;
        wait_for_fast_path(&world)?;

        let status = world.gateway.status()?;
        let mut can_poll = true;
        let links = status.value()["links"].as_array().context("no links in the status")?;
        for link in links {
            let statistics = &link["statistics"];
            ensure!(statistics["napi_polls"].as_u64() > Some(0), "the worker does not poll: {link}");
            can_poll &= statistics["napi_id"].is_u64();
        }
        // Put off where somebody polls in their place, and only there.
        ensure!(
            (deferral(&world.gateway)? != before) == can_poll,
            "{:?} with {:?}",
            deferral(&world.gateway)?,
            links
        );

        let process = world.gateway.process()?;
        process.signal(Signal::STOP)?;
        std::thread::sleep(Duration::from_millis(500));
        process.signal(Signal::CONT)?;
        wait_for_fast_path(&world)?;

        world.gateway.terminate()?;
        let after = deferral(&world.gateway)?;
        ensure!(after == before, "{after:?} is left of {before:?}");
        Ok(())
    });
}

/// What bounds the latency of a CPU's idle states, for the time of a test.
struct IdleBound {
    path: PathBuf,
    former: String,
}

impl IdleBound {
    /// One millisecond: neither the default nor what a gateway sets, and no change to speak of.
    const OURS: &str = "1000";

    fn set(cpu: u64) -> Result<Self> {
        let path = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us"));
        let failed = || format!("{} cannot be written", path.display());
        let former = fs::read_to_string(&path).with_context(failed)?;
        fs::write(&path, Self::OURS).with_context(failed)?;
        Ok(Self { path, former })
    }

    fn value(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.path)?.trim().to_owned())
    }
}

impl Drop for IdleBound {
    fn drop(&mut self) {
        fs::write(&self.path, &self.former).expect("what could be written can be written again");
    }
}

#[test]
fn a_workers_cpu_is_held_out_of_idle_states_while_packets_arrive() {
    let name = "a_workers_cpu_is_held_out_of_idle_states_while_packets_arrive";
    scenario_with_wgx(name, |lab| {
        let mut world = World::build(lab, AF_XDP)?;
        let status = world.gateway.status()?;
        let cpu = status.value()["workers"][0]["cpu"].as_u64().context("a worker without a CPU")?;
        let bound = match IdleBound::set(cpu) {
            Ok(bound) => bound,
            Err(error) => {
                scenario::skip(name, &format!("{error:#}"));
                return Ok(());
            }
        };
        let socket = world.clients[0].namespace.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
        socket.connect((server_side(SERVER_HOST).v4, 9))?;
        // The setting, and what the status says of it.
        let reads = |world: &World, value: &str, is_held: bool| -> Result<bool> {
            let status = world.gateway.status()?;
            Ok(bound.value()? == value && status.value()["workers"][0]["pm_qos_held"] == is_held)
        };
        let hold = |world: &World| {
            wait_until("the CPU is held", START_TIMEOUT, || {
                // That nobody listens to them is told now and then, and no matter.
                (0..200).for_each(|_| drop(socket.send(&[0; 200])));
                reads(world, "n/a", true)
            })
        };

        hold(&world)?;
        wait_until("the CPU is let go", START_TIMEOUT, || reads(&world, IdleBound::OURS, false))?;
        hold(&world)?;
        world.gateway.terminate()?;
        let left = bound.value()?;
        ensure!(left == IdleBound::OURS, "{left} is left of {}", IdleBound::OURS);
        Ok(())
    });
}

#[test]
fn udp_rung_attaches_no_xdp_program() {
    scenario_with_wgx("udp_rung_attaches_no_xdp_program", |lab| {
        let world = World::build(lab, Implementation::Wgx(Io::Udp))?;
        ensure!(
            world.gateway.xdp_interfaces()?.is_empty(),
            "XDP programs: {:?}",
            world.gateway.xdp_interfaces()?
        );
        let status = world.gateway.status()?;
        ensure!(status.rung() == "udp", "the gateway is on the rung {:?}", status.rung());
        ensure!(status.fast() == 0 && status.slow() > 0, "{:?}", status.verdicts());
        Ok(())
    });
}

#[test]
fn paced_load_crosses_without_loss() {
    scenario_with_wgx("paced_load_crosses_without_loss", |lab| {
        let world = World::build(lab, AF_XDP)?;
        wait_for_fast_path(&world)?;
        let _iperf = world.site.start_iperf(lab)?;
        for direction in Direction::BOTH {
            // 20 Mb/s in packets of 1200 bytes: 2083 packets a second.
            let to = server_side(SERVER_HOST).v4.into();
            let udp = iperf::udp(&world.clients[0].namespace, to, direction, 3, 20, 1200)?;
            ensure!(udp.packets > 5000 && udp.lost == 0, "{direction:?}: {udp:?}");
        }
        Ok(())
    });
}
