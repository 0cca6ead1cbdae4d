//! The laboratory itself, with the reference implementation as the gateway: what fails here is not `wgx`.

use std::{fs, path::Path, time::Duration};

use tests::{
    Implementation, Namespace,
    iperf::{self, Direction},
    ping, scenario,
    site::{Family, SERVER_HOST, server_side},
    wait_until,
    world::World,
};

#[test]
fn reference_gateway_carries_pings_tcp_and_udp() {
    scenario("reference_gateway_carries_pings_tcp_and_udp", |lab| {
        let world = World::build(lab, Implementation::WireguardGo)?;
        for client in &world.clients {
            for family in Family::BOTH {
                ping::all_answered(&client.namespace, server_side(SERVER_HOST).of(family), 10)?;
                ping::all_answered(&world.site.server, client.inner.of(family), 10)?;
            }
        }
        let _iperf = world.site.start_iperf(lab)?;
        let server = server_side(SERVER_HOST).v4.into();
        for direction in Direction::BOTH {
            let tcp = iperf::tcp(&world.clients[0].namespace, server, direction, 1)?;
            assert!(tcp.bits_per_second > 1e6, "{tcp:?}");
            let udp = iperf::udp_lossless(lab, &world.clients[0].namespace, server, direction, 2, 1000)?;
            assert!(udp.packets > 100, "{udp:?}");
        }
        Ok(())
    });
}

#[test]
fn laboratory_leaves_nothing_behind() {
    let mut names = Vec::new();
    let mut files = Vec::new();
    scenario("laboratory_leaves_nothing_behind", |lab| {
        let world = World::build(lab, Implementation::WireguardGo)?;
        names = lab.namespaces().iter().map(Namespace::name).map(str::to_owned).collect();
        files.push(lab.folder().to_owned());
        files.push(Path::new("/run/wireguard").join(&world.gateway.interface).with_extension("sock"));
        assert!(files.iter().all(|file| file.exists()), "{files:?}");
        Ok(())
    });
    for file in files.iter().cloned().chain(names.iter().map(|name| Path::new("/run/netns").join(name))) {
        assert!(!file.exists(), "{} is still there", file.display());
    }
    // No process is left that belongs to a namespace without a name.
    let running = || -> Vec<_> {
        let commands = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).into_owned())
        });
        commands.filter(|command| names.iter().any(|name| command.contains(name))).collect()
    };
    // One that was killed is there until it has run once more.
    let gone = wait_until("no process is left", Duration::from_secs(20), || Ok(running().is_empty()));
    assert!(gone.is_ok(), "{:?} are still running", running());
}
