//! The configuration socket, byte by byte: what is answered, what is refused, and that a refusal changes nothing.
//! What wireguard-go does the same way is asked of it too: that checks the question.

use std::{fmt::Write as _, fs, io::Write as _, net::UdpSocket, os::unix::net::UnixStream};

use anyhow::{Context, Result, ensure};
use tests::{
    Gateway, Implementation, Io, Lab, Site, Uapi,
    gateway::START_TIMEOUT,
    scenario_with_wgx,
    uapi::{configuration, errno, key, path},
    wait_until,
};

const AF_XDP: Implementation = Implementation::Wgx(Io::AfXdp);
const UDP: Implementation = Implementation::Wgx(Io::Udp);
const OURS: [Implementation; 2] = [AF_XDP, UDP];
const ALL: [Implementation; 3] = [AF_XDP, UDP, Implementation::WireguardGo];

const EINVAL: i32 = -22;
const EPROTO: i32 = -71;
const EADDRINUSE: i32 = -98;

/// Runs `test` with each program and data path, on a site of its own.
fn each(
    name: &str,
    implementations: &[Implementation],
    test: impl Fn(&mut Gateway, &mut Uapi) -> Result<()>,
) {
    scenario_with_wgx(name, |lab| {
        let site = Site::build(lab, 1)?;
        for implementation in implementations {
            let mut gateway = running(lab, &site, *implementation)?;
            let mut uapi = Uapi::connect(&gateway.interface)?;
            test(&mut gateway, &mut uapi).with_context(|| implementation.to_string())?;
            gateway.terminate()?;
        }
        Ok(())
    });
}

fn running(lab: &mut Lab, site: &Site, implementation: Implementation) -> Result<Gateway> {
    let mut gateway = Gateway::new(lab, site, implementation)?;
    gateway.launch(lab)?;
    Ok(gateway)
}

/// A device with a key, a port and two peers that have everything.
fn furnish(uapi: &mut Uapi) -> Result<String> {
    let lines = format!(
        "private_key={}\nlisten_port=51999\nfwmark=7\n\
         public_key={}\npreshared_key={}\nendpoint=192.0.2.9:7\npersistent_keepalive_interval=25\nallowed_ip=10.1.0.0/16\nallowed_ip=fd01::/64\n\
         public_key={}\nendpoint=[2001:db8:1::9]:8\nallowed_ip=10.2.0.0/16\n",
        private_key(),
        key(1),
        key(1000),
        key(2)
    );
    ensure!(uapi.set(&lines)? == 0, "the configuration is refused");
    uapi.get()
}

/// One that is clamped already.
fn private_key() -> String {
    format!("f8{}41", "5a".repeat(30))
}

fn check_refused(uapi: &mut Uapi, lines: &str, expected: i32) -> Result<()> {
    let before = uapi.get()?;
    let errno = uapi.set(lines)?;
    ensure!(errno == expected, "{errno} instead of {expected} for {lines}");
    let after = uapi.get()?;
    ensure!(configuration(&before) == configuration(&after), "{lines} changed\n{before}to\n{after}");
    Ok(())
}

#[test]
fn a_get_tells_every_key_in_order() {
    each("a_get_tells_every_key_in_order", &ALL, |gateway, uapi| {
        let mut get = furnish(uapi)?;
        if gateway.implementation() == Implementation::WireguardGo {
            // It sends initiations while its device is down.
            get = get.replace("tx_bytes=148\n", "tx_bytes=0\n");
        }
        let zeros = "0".repeat(64);
        let state = "last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n";
        let first = format!(
            "public_key={}\npreshared_key={}\nprotocol_version=1\nendpoint=192.0.2.9:7\n{state}persistent_keepalive_interval=25\n\
             allowed_ip=10.1.0.0/16\nallowed_ip=fd01::/64\n",
            key(1),
            key(1000)
        );
        let second = format!(
            "public_key={}\npreshared_key={zeros}\nprotocol_version=1\nendpoint=[2001:db8:1::9]:8\n{state}persistent_keepalive_interval=0\n\
             allowed_ip=10.2.0.0/16\n",
            key(2)
        );
        let device = format!("private_key={}\nlisten_port=51999\nfwmark=7\n", private_key());
        // wireguard-go tells peers in any order.
        let orders = [[first.as_str(), &second], [&second, &first]];
        ensure!(orders.iter().any(|peers| get == device.clone() + &peers.concat()), "{get}");
        Ok(())
    });
}

#[test]
fn a_get_with_a_tail_is_refused() {
    each("a_get_with_a_tail_is_refused", &ALL, |gateway, uapi| {
        let answer = uapi.ask("get=1\nlisten_port=1\n\n")?;
        ensure!(errno(&answer)? == EINVAL, "{answer}");
        Uapi::connect(&gateway.interface)?.get().map(drop)
    });
}

#[test]
fn several_operations_share_a_connection() {
    each("several_operations_share_a_connection", &ALL, |_, uapi| {
        for mark in [3, 4] {
            ensure!(uapi.set(&format!("fwmark={mark}\n"))? == 0, "refused");
            ensure!(uapi.get()?.contains(&format!("fwmark={mark}\n")), "not applied");
        }
        Ok(())
    });
}

#[test]
fn operations_may_be_sent_before_the_answers_are_read() {
    // Not by wireguard-go, which forgets what it has read beyond the end of a set.
    each("operations_may_be_sent_before_the_answers_are_read", &OURS, |_, uapi| {
        uapi.send("set=1\nfwmark=5\n\nget=1\n\nset=1\nnonsense\n\nset=1\nfwmark=6\n\nget=1\n\n")?;
        ensure!(uapi.answer()? == "errno=0\n\n", "refused");
        ensure!(uapi.answer()?.contains("fwmark=5\n"), "not applied");
        ensure!(errno(&uapi.answer()?)? == EPROTO, "not refused");
        ensure!(uapi.answer()? == "errno=0\n\n", "refused");
        ensure!(uapi.answer()?.contains("fwmark=6\n"), "not applied");
        Ok(())
    });
}

#[test]
fn bad_requests_have_negative_error_numbers_and_change_nothing() {
    each("bad_requests_have_negative_error_numbers_and_change_nothing", &OURS, |_, uapi| {
        furnish(uapi)?;
        let (peer, hex) = (format!("public_key={}\n", key(1)), key(77));
        let device = [
            "fwmark=99\nno_such_key=1\n",
            "fwmark=99\nlisten_port=65536\n",
            "fwmark=99\nlisten_port=-1\n",
            "fwmark=4294967296\n",
            "fwmark=0x10\n",
            "replace_peers=false\n",
            "fwmark=99\nendpoint=192.0.2.1:1\n",
            "fwmark=99\n=\n",
        ];
        for lines in device {
            check_refused(uapi, lines, EINVAL)?;
        }
        for lines in ["listen_port\n", "fwmark=99\nx\n", &format!("{peer}remove\n")] {
            check_refused(uapi, lines, EPROTO)?;
        }
        for value in
            ["", "00", &hex[1..], &format!("{hex}0"), &format!("{}x", &hex[1..]), &format!(" {}", &hex[1..])]
        {
            check_refused(uapi, &format!("fwmark=99\nprivate_key={value}\n"), EINVAL)?;
            check_refused(uapi, &format!("replace_peers=true\npublic_key={value}\n"), EINVAL)?;
            check_refused(uapi, &format!("{peer}remove=true\n{peer}preshared_key={value}\n"), EINVAL)?;
        }
        let of_peer = [
            "update_only=1",
            "remove=yes",
            "replace_allowed_ips=",
            "endpoint=192.0.2.1",
            "endpoint=example.com:1",
            "endpoint=[fe80::1]",
            "persistent_keepalive_interval=65536",
            "persistent_keepalive_interval=off",
            "allowed_ip=10.0.0.1",
            "allowed_ip=10.0.0.0/33",
            "allowed_ip=::/129",
            "allowed_ip=10.0.0.0/-1",
            "allowed_ip=--10.0.0.0/8",
            "protocol_version=2",
            "protocol_version=",
            "fwmark=1",
            "private_key=00",
            "rx_bytes=1",
            "colour=blue",
        ];
        for line in of_peer {
            // The last of many lines.
            check_refused(
                uapi,
                &format!("fwmark=99\nreplace_peers=true\n{peer}allowed_ip=10.7.0.0/16\n{line}\n"),
                EINVAL,
            )?;
        }
        Ok(())
    });
}

#[test]
fn what_wireguard_go_refuses_has_the_same_number() {
    each("what_wireguard_go_refuses_has_the_same_number", &ALL, |gateway, _| {
        let peer = format!("public_key={}\n", key(1));
        for (lines, expected) in [
            ("no_such_key=1\n".to_owned(), EINVAL),
            ("listen_port\n".to_owned(), EPROTO),
            ("listen_port=65536\n".to_owned(), EINVAL),
            ("replace_peers=false\n".to_owned(), EINVAL),
            ("private_key=00\n".to_owned(), EINVAL),
            (peer.clone() + "allowed_ip=10.0.0.1\n", EINVAL),
            (peer.clone() + "persistent_keepalive_interval=65536\n", EINVAL),
            (peer.clone() + "protocol_version=2\n", EINVAL),
            (peer.clone() + "update_only=false\n", EINVAL),
            (peer + "listen_port=1\n", EINVAL),
        ] {
            // A connection each: wireguard-go stops reading at the bad line.
            let errno = Uapi::connect(&gateway.interface)?.set(&lines)?;
            ensure!(errno == expected, "{errno} instead of {expected} for {lines}");
        }
        Ok(())
    });
}

#[test]
fn a_port_in_use_changes_nothing_else() {
    each("a_port_in_use_changes_nothing_else", &OURS, |gateway, uapi| {
        furnish(uapi)?;
        for taken in ["0.0.0.0:51998", "[::]:51997"] {
            let socket = gateway.namespace.enter(|| UdpSocket::bind(taken))?;
            let port =
                socket.as_ref().map_err(|error| anyhow::anyhow!("{taken}: {error}"))?.local_addr()?.port();
            let lines = format!(
                "private_key={}\nfwmark=99\nlisten_port={port}\nreplace_peers=true\npublic_key={}\n",
                key(8),
                key(9)
            );
            check_refused(uapi, &lines, EADDRINUSE)?;
        }
        // The old port was never given up.
        ensure!(gateway.namespace.enter(|| UdpSocket::bind("0.0.0.0:51999").is_err())?, "the port was left");
        Ok(())
    });
}

#[test]
fn update_only_adds_no_peer() {
    each("update_only_adds_no_peer", &ALL, |_, uapi| {
        let before = furnish(uapi)?;
        let lines = format!(
            "public_key={}\nupdate_only=true\npersistent_keepalive_interval=9\nallowed_ip=10.1.0.0/16\n",
            key(3)
        );
        ensure!(uapi.set(&lines)? == 0, "refused");
        let after = uapi.get()?;
        ensure!(!after.contains(&key(3)), "added: {after}");
        ensure!(after.contains("allowed_ip=10.1.0.0/16"), "{before}{after}");
        ensure!(
            uapi.set(&format!("public_key={}\nupdate_only=true\npersistent_keepalive_interval=9\n", key(2)))?
                == 0,
            "refused"
        );
        ensure!(
            uapi.get()?.contains("persistent_keepalive_interval=9\nallowed_ip=10.2.0.0/16\n"),
            "not updated"
        );
        ensure!(
            uapi.set(&format!("public_key={}\nremove=true\n", key(3)))? == 0,
            "removing nobody is refused"
        );
        Ok(())
    });
}

/// A peer as [`configuration`] shows it, with prefixes in the order of their texts.
fn section(key: &str, preshared_key: &str, endpoint: &str, keepalive: u16, prefixes: &[&str]) -> String {
    let prefixes =
        prefixes.iter().fold(String::new(), |text, prefix| text + &format!("allowed_ip={prefix}\n"));
    format!(
        "public_key={key}\npreshared_key={preshared_key}\nprotocol_version=1\nendpoint={endpoint}\n\
         persistent_keepalive_interval={keepalive}\n{prefixes}"
    )
}

/// The device has these peers, in any order, since wireguard-go has none.
fn check_peers(uapi: &mut Uapi, mut expected: Vec<String>) -> Result<()> {
    let configuration = configuration(&uapi.get()?);
    let peers = configuration.split("public_key=").skip(1);
    let mut found: Vec<_> = peers.map(|peer| format!("public_key={peer}")).collect();
    found.sort_unstable();
    expected.sort_unstable();
    ensure!(found.len() == expected.len(), "{} peers, not {}", found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        ensure!(found == expected, "{found}instead of\n{expected}");
    }
    Ok(())
}

#[test]
fn modifying_an_existing_peer_changes_only_what_is_named() {
    each("modifying_an_existing_peer_changes_only_what_is_named", &ALL, |_, uapi| {
        furnish(uapi)?;
        let zeros = "0".repeat(64);
        let first = |preshared_key: &str, endpoint, keepalive, prefixes: &[&str]| {
            section(&key(1), preshared_key, endpoint, keepalive, prefixes)
        };
        let second = |prefixes: &[&str]| section(&key(2), &zeros, "[2001:db8:1::9]:8", 0, prefixes);
        let change = |uapi: &mut Uapi, lines: &str| -> Result<()> {
            let errno = uapi.set(&format!("public_key={}\n{lines}", key(1)))?;
            ensure!(errno == 0, "{errno} for {lines}");
            Ok(())
        };
        let (old, new) = ("192.0.2.9:7", "192.0.2.10:99");
        change(uapi, "")?;
        let peer = first(&key(1000), old, 25, &["10.1.0.0/16", "fd01::/64"]);
        check_peers(uapi, vec![peer, second(&["10.2.0.0/16"])])?;
        change(uapi, &format!("endpoint={new}\n"))?;
        let peer = first(&key(1000), new, 25, &["10.1.0.0/16", "fd01::/64"]);
        check_peers(uapi, vec![peer, second(&["10.2.0.0/16"])])?;
        change(uapi, "persistent_keepalive_interval=0\n")?;
        let peer = first(&key(1000), new, 0, &["10.1.0.0/16", "fd01::/64"]);
        check_peers(uapi, vec![peer, second(&["10.2.0.0/16"])])?;
        // One is new, and one moves over from the other peer.
        change(uapi, "allowed_ip=10.1.1.7/24\nallowed_ip=10.2.0.0/16\n")?;
        let peer = first(&key(1000), new, 0, &["10.1.0.0/16", "10.1.1.0/24", "10.2.0.0/16", "fd01::/64"]);
        check_peers(uapi, vec![peer, second(&[])])?;
        change(uapi, &format!("preshared_key={zeros}\nreplace_allowed_ips=true\nallowed_ip=10.3.0.1/16\n"))?;
        check_peers(uapi, vec![first(&zeros, new, 0, &["10.3.0.0/16"]), second(&[])])?;
        change(uapi, "remove=true\n")?;
        check_peers(uapi, vec![second(&[])])
    });
}

#[test]
fn prefixes_are_removed_one_by_one() {
    each("prefixes_are_removed_one_by_one", &OURS, |_, uapi| {
        let mut lines = format!("public_key={}\n", key(1));
        for number in 0..197 {
            write!(lines, "allowed_ip=192.168.{number}.0/24\nallowed_ip=fd00:{number:x}::/48\n")?;
        }
        ensure!(uapi.set(&lines)? == 0, "refused");
        ensure!(uapi.get()?.matches("allowed_ip=").count() == 394, "not 394");
        let removed = [
            "192.168.0.0/24",
            "192.168.100.7/24",
            "192.168.196.0/24",
            "fd00::/48",
            "fd00:64::5/48",
            "fd00:c4::/48",
        ];
        let mut lines = format!("public_key={}\n", key(1));
        for prefix in removed {
            writeln!(lines, "allowed_ip=-{prefix}")?;
        }
        // Not there, not in this length, and somebody else's: no errors, and nothing happens.
        write!(
            lines,
            "allowed_ip=-172.16.0.0/12\nallowed_ip=-192.168.1.0/25\npublic_key={}\nallowed_ip=-192.168.1.0/24\n",
            key(2)
        )?;
        ensure!(uapi.set(&lines)? == 0, "refused");
        let get = uapi.get()?;
        ensure!(get.matches("allowed_ip=").count() == 388, "{} stay", get.matches("allowed_ip=").count());
        for prefix in [
            "192.168.0.0/24",
            "192.168.100.0/24",
            "192.168.196.0/24",
            "fd00::/48",
            "fd00:64::/48",
            "fd00:c4::/48",
        ] {
            ensure!(!get.contains(&format!("allowed_ip={prefix}\n")), "{prefix} stays");
        }
        Ok(())
    });
}

#[test]
fn a_thousand_peers_read_back_exactly() {
    each("a_thousand_peers_read_back_exactly", &ALL, |_, uapi| {
        let mut peers = Vec::new();
        for number in 1..=1000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let endpoint = format!("192.0.{high}.{low}:{number}");
            let prefixes = [format!("10.{high}.{low}.0/24"), format!("fd00:{number:x}::/64")];
            let prefixes = [prefixes[0].as_str(), &prefixes[1]];
            // The device is down, so no keepalive leaves.
            peers.push(section(&key(number), &key(number + 5000), &endpoint, number as u16, &prefixes));
        }
        ensure!(uapi.set(&peers.concat())? == 0, "refused");
        check_peers(uapi, peers)
    });
}

#[test]
fn a_connection_dropped_in_a_set_changes_nothing() {
    each("a_connection_dropped_in_a_set_changes_nothing", &OURS, |gateway, uapi| {
        furnish(uapi)?;
        let before = configuration(&uapi.get()?);
        let request = format!(
            "set=1\nfwmark=99\nreplace_peers=true\npublic_key={}\nallowed_ip=10.9.0.0/16\n\n",
            key(9)
        );
        for len in (0..request.len()).step_by(7).chain([request.len() - 1]) {
            let mut client = Uapi::connect(&gateway.interface)?;
            client.send(&request[..len])?;
            // Half of them only stop talking, and are told so.
            if len % 2 == 1 {
                client.finish()?;
                ensure!(errno(&client.answer()?)? == EPROTO, "{len} bytes");
                ensure!(client.is_closed()?, "{len} bytes");
            }
        }
        // What these said has been read before what comes now.
        let after = configuration(&uapi.get()?);
        ensure!(before == after, "{before}became\n{after}");
        Ok(())
    });
}

#[test]
fn a_megabyte_without_a_newline_is_refused_in_bounded_memory() {
    each("a_megabyte_without_a_newline_is_refused_in_bounded_memory", &OURS, |gateway, uapi| {
        let resident = |gateway: &mut Gateway| -> Result<u64> {
            let status = fs::read_to_string(format!("/proc/{}/status", gateway.process()?.pid()))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        let before = resident(gateway)?;
        for start in ["", "get=1\n", "set=1\n", "set=1\nprivate_key="] {
            let mut client = Uapi::connect(&gateway.interface)?;
            client.send(start)?;
            // It may be refused, and the connection closed, long before all is sent.
            let _ = client.send(vec![b'a'; 1 << 20]);
            let answer = client.answer()?;
            ensure!(errno(&answer)? == EINVAL, "{answer}");
            ensure!(client.is_closed()?, "it goes on after {start:?}");
        }
        let after = resident(gateway)?;
        ensure!(after < before + 1024, "{before} kB became {after} kB");
        uapi.get().map(drop)
    });
}

#[test]
fn slow_and_silent_clients_keep_nobody_waiting() {
    each("slow_and_silent_clients_keep_nobody_waiting", &OURS, |gateway, uapi| {
        furnish(uapi)?;
        // More than are served at once.
        let mut silent = Vec::new();
        for number in 0..100 {
            let mut client = UnixStream::connect(path(&gateway.interface))?;
            client.write_all(["", "s", "set=1\nfwmark=99\n", "get=1\n"][number % 4].as_bytes())?;
            silent.push(client);
        }
        let mut client = Uapi::connect(&gateway.interface)?;
        ensure!(client.set("fwmark=8\n")? == 0, "refused");
        ensure!(client.get()?.contains("fwmark=8\n"), "not applied");
        let descriptors = fs::read_dir(format!("/proc/{}/fd", gateway.process()?.pid()))?.count();
        ensure!(descriptors < 100, "{descriptors} descriptors");
        Ok(())
    });
}

#[test]
fn it_ends_with_its_socket_file_or_its_device_and_removes_nothing_of_others() {
    scenario_with_wgx("it_ends_with_its_socket_file_or_its_device_and_removes_nothing_of_others", |lab| {
        let site = Site::build(lab, 1)?;
        for implementation in OURS {
            let mut gateway = running(lab, &site, implementation)?;
            let other = path(&lab.interface_name("other"));
            fs::write(&other, "not ours")?;
            fs::remove_file(path(&gateway.interface))?;
            ensure!(gateway.process()?.wait(START_TIMEOUT)?.success(), "{implementation}: socket file");
            ensure!(!gateway.has_interface()?, "{implementation}: the device stayed");

            gateway.launch(lab)?;
            gateway.namespace.ip(&format!("link delete {}", gateway.interface))?;
            ensure!(gateway.process()?.wait(START_TIMEOUT)?.success(), "{implementation}: device");
            ensure!(!path(&gateway.interface).exists(), "{implementation}: the socket stayed");
            wait_until("no XDP program is attached", START_TIMEOUT, || {
                Ok(gateway.xdp_interfaces()?.is_empty())
            })?;

            // A successor's socket in the place of ours: we go, it stays.
            gateway.launch(lab)?;
            let ours = path(&gateway.interface);
            let successor = ours.with_extension("new");
            let listener = std::os::unix::net::UnixListener::bind(&successor)?;
            fs::rename(&successor, &ours)?;
            ensure!(gateway.process()?.wait(START_TIMEOUT)?.success(), "{implementation}: replaced");
            ensure!(ours.exists(), "{implementation}: another's socket was removed");
            drop(listener);
            ensure!(fs::read_to_string(&other)? == "not ours", "{implementation}");
            fs::remove_file(ours)?;
        }
        Ok(())
    });
}

#[test]
fn an_answer_of_megabytes_is_told_whole_while_others_are_served() {
    each("an_answer_of_megabytes_is_told_whole_while_others_are_served", &[UDP], |gateway, uapi| {
        let mut lines = String::new();
        for number in 0..20_000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            write!(lines, "public_key={}\nallowed_ip=10.{high}.{low}.0/24\n", key(number + 1))?;
        }
        ensure!(uapi.set(&lines)? == 0, "refused");
        // One that asks and does not read, until it is given up.
        let mut deaf = Uapi::connect(&gateway.interface)?;
        deaf.send("get=1\n\n")?;
        // Its answer has begun before anybody else asks.
        deaf.hear()?;
        let mut other = Uapi::connect(&gateway.interface)?;
        let get = other.get()?;
        ensure!(get.matches("public_key=").count() == 20_000, "{} peers", get.matches("public_key=").count());
        ensure!(other.set(&format!("public_key={}\nremove=true\n", key(1)))? == 0, "refused");
        ensure!(uapi.get()?.matches("public_key=").count() == 19_999, "not removed");
        // Given up, not left half told with a good end.
        ensure!(deaf.answer().is_err(), "the deaf client was told everything");
        Ok(())
    });
}
