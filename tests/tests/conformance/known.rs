//! Failures known from other implementations, each of which the gateway must not have. Those that concern the wire
//! format, endpoints, cookies and counters are in the other tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use tests::{
    scripted::{
        Bed, Case, Client, Secrets,
        bed::hex,
        client::{PATIENCE, SILENCE},
    },
    site::Family,
    wait_until,
};

pub const CASES: &[Case] = tests::cases! {
    longest_datagrams_of_all_types_are_survived,
    peer_is_changed_without_disturbing_its_session,
    allowed_ip_that_moves_takes_its_packets_along,
    wrong_lines_are_refused_with_a_negative_errno,
    update_only_makes_no_peer,
    several_requests_share_a_connection: "it loses requests that arrive together with another",
    million_bytes_without_a_newline_are_survived,
    traffic_goes_on_while_the_configuration_is_read_and_written,
    thousand_peers_are_read_back_exactly,
    tunnel_that_is_down_answers_nothing: "it answers",
    refused_request_changes_nothing: "it applies the lines before the wrong one",
    request_that_breaks_off_changes_nothing: "it applies lines as they come",
};

fn longest_datagrams_of_all_types_are_survived(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    // Over IPv6, the longest payload is the same: the length field of UDP ends there.
    for len in [65_507, 65_000, 9000, 2048, 1473] {
        for kind in 0..6_u8 {
            let mut datagram = vec![0xa5; len];
            datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
            client.send(&datagram)?;
            datagram[4..8].copy_from_slice(&session.remote_index.to_le_bytes());
            client.send(&datagram)?;
        }
        thread::sleep(Duration::from_millis(5));
    }
    client.exchange(&mut session, &service, b"after the longest datagrams")
}

fn peer_is_changed_without_disturbing_its_session(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"before")?;
    let [v4, v6] = client.inner.both();
    for words in [
        "persistent-keepalive 77".to_owned(),
        format!("allowed-ips {v4}/32,{v6}/128,10.99.0.0/24"),
        format!("allowed-ips {v4}/32,{v6}/128"),
        format!("endpoint {}", client.wire.local()?),
        "persistent-keepalive 0".to_owned(),
    ] {
        bed.set(client, &words)?;
        client.exchange(&mut session, &service, words.as_bytes())?;
    }
    Ok(())
}

fn allowed_ip_that_moves_takes_its_packets_along(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut heir = bed.admit(client.family())?;
    let service = bed.service(Family::V4)?;
    let mut session = client.connect()?;
    let mut heirs = heir.connect()?;
    client.exchange(&mut session, &service, b"before")?;
    let legacy = client.inner;
    bed.set(&heir, &format!("allowed-ips {}/32,{}/32", heir.inner.v4, legacy.v4))?;
    client.send(&session.seal(&client.packet(&service, b"from who had it")))?;
    heir.inner = legacy;
    heir.exchange(&mut heirs, &service, b"from who has it")?;
    client.silence(SILENCE)
}

/// The number in the answer's last line.
fn errno(answer: &str) -> Result<i32> {
    let number = answer.trim_end().rsplit('\n').next().and_then(|line| line.strip_prefix("errno="));
    number.with_context(|| format!("no errno in {answer:?}"))?.parse().context("errno is a number")
}

/// Requests with one wrong line each.
fn wrong_requests(client: &Client) -> Vec<String> {
    let peer = format!("set=1\npublic_key={}\n", hex(&client.secrets.public));
    let mut requests: Vec<_> = [
        "frobnicate=1",
        "private_key=00",
        "private_key=zz00000000000000000000000000000000000000000000000000000000000000",
        "listen_port=65536",
        "listen_port=-1",
        "listen_port",
        "fwmark=0x100000000",
        "replace_peers=false",
        "public_key=",
    ]
    .iter()
    .map(|line| format!("set=1\n{line}\n\n"))
    .collect();
    for line in [
        "preshared_key=0",
        "endpoint=nowhere",
        "endpoint=192.0.2.1",
        "endpoint=192.0.2.1:99999",
        "persistent_keepalive_interval=65536",
        "persistent_keepalive_interval=often",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=10.0.0.0.0/8",
        "allowed_ip=fd00::/129",
        "allowed_ip=",
        "protocol_version=2",
        "remove=yes",
        "replace_allowed_ips=1",
        "no_such_key=1",
    ] {
        requests.push(format!("{peer}{line}\n\n"));
    }
    requests
}

fn wrong_lines_are_refused_with_a_negative_errno(bed: &Bed, client: &mut Client) -> Result<()> {
    for request in wrong_requests(client) {
        let answer = bed.uapi(&request)?;
        ensure!(errno(&answer)? < 0, "{request:?} was answered {answer:?}");
    }
    client.connect().map(|_| ())
}

/// With the next, the last of the table: the reference loses its peers.
fn refused_request_changes_nothing(bed: &Bed, client: &mut Client) -> Result<()> {
    let before = bed.uapi("get=1\n\n")?;
    let stranger = hex(&Secrets::generate([0; 32])?.public);
    let peer = hex(&client.secrets.public);
    for request in [
        format!("set=1\nfwmark=7\npublic_key={stranger}\nallowed_ip=10.77.0.0/16\nfrobnicate=1\n\n"),
        format!("set=1\npublic_key={peer}\npersistent_keepalive_interval=99\nendpoint=nowhere\n\n"),
        format!("set=1\npublic_key={peer}\nremove=true\npublic_key={stranger}\npreshared_key=12\n\n"),
        format!("set=1\nreplace_peers=true\npublic_key={stranger}\nallowed_ip=10.0.0.0/99\n\n"),
    ] {
        let answer = bed.uapi(&request)?;
        ensure!(errno(&answer)? < 0, "{request:?} was answered {answer:?}");
        let after = bed.uapi("get=1\n\n")?;
        ensure!(settings(&before) == settings(&after), "{request:?} was applied in part");
    }
    client.connect().map(|_| ())
}

/// What `get` says of the interface and, in no order, of its peers, without what traffic changes.
fn settings(answer: &str) -> BTreeSet<String> {
    let changing = ["last_handshake_time", "tx_bytes", "rx_bytes", "endpoint="];
    let stays = |line: &&str| !changing.iter().any(|key| line.starts_with(key));
    let sections = answer.trim_end_matches("errno=0\n\n").split("public_key=");
    sections.map(|section| section.lines().filter(stays).collect::<Vec<_>>().join("\n")).collect()
}

fn update_only_makes_no_peer(bed: &Bed, client: &mut Client) -> Result<()> {
    let stranger = hex(&Secrets::generate([0; 32])?.public);
    let answer =
        bed.uapi(&format!("set=1\npublic_key={stranger}\nupdate_only=true\nallowed_ip=10.66.0.0/16\n\n"))?;
    ensure!(errno(&answer)? == 0, "{answer}");
    let after = bed.uapi("get=1\n\n")?;
    ensure!(!after.contains(&stranger) && !after.contains("10.66.0.0"), "the peer was made");
    let peer = hex(&client.secrets.public);
    let answer =
        bed.uapi(&format!("set=1\npublic_key={peer}\nupdate_only=true\nallowed_ip=10.66.0.0/16\n\n"))?;
    ensure!(errno(&answer)? == 0, "{answer}");
    ensure!(bed.shown("allowed-ips", client)?.contains("10.66.0.0/16"), "the peer was not changed");
    Ok(())
}

fn several_requests_share_a_connection(bed: &Bed, client: &mut Client) -> Result<()> {
    let peer = hex(&client.secrets.public);
    let set = |seconds| format!("set=1\npublic_key={peer}\npersistent_keepalive_interval={seconds}\n\n");
    let answer = bed.uapi(&format!("{}get=1\n\n{}get=1\n\n{}", set(41), set(42), set(0)))?;
    let (first, second) =
        answer.split_once("persistent_keepalive_interval=41\n").context("41 is not read")?;
    ensure!(first.starts_with("errno=0\n\n"), "{first:?}");
    ensure!(second.contains("persistent_keepalive_interval=42\n"), "42 is not read");
    ensure!(answer.matches("errno=0\n\n").count() == 5, "{answer:?}");
    Ok(())
}

fn million_bytes_without_a_newline_are_survived(bed: &Bed, client: &mut Client) -> Result<()> {
    let path = format!("/var/run/wireguard/{}.sock", bed.gateway.interface);
    for start in ["", "set=1\n", "set=1\nprivate_key=", "get=1\n"] {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // It may hang up at any point; it must not keep all of it, nor hang.
        let sent = stream.write_all(start.as_bytes()).and_then(|()| stream.write_all(&vec![b'a'; 1_000_000]));
        if sent.is_ok() {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            ensure!(!answer.starts_with(b"errno=0"), "{start:?} and garbage was applied");
        }
        drop(stream);
        ensure!(errno(&bed.uapi("get=1\n\n")?)? == 0, "the next request fails");
    }
    client.connect().map(|_| ())
}

fn request_that_breaks_off_changes_nothing(bed: &Bed, client: &mut Client) -> Result<()> {
    let peer = hex(&client.secrets.public);
    let stranger = hex(&Secrets::generate([0; 32])?.public);
    let before = bed.uapi("get=1\n\n")?;
    let request = format!(
        "set=1\nfwmark=9\nreplace_peers=true\npublic_key={stranger}\nallowed_ip=10.78.0.0/16\npublic_key={peer}\n"
    );
    for len in [request.len(), request.len() - 1, request.len() - 20, request.len() - 66, 12] {
        let mut stream = UnixStream::connect(format!("/var/run/wireguard/{}.sock", bed.gateway.interface))?;
        stream.write_all(&request.as_bytes()[..len])?;
        drop(stream);
        thread::sleep(Duration::from_millis(50));
        let after = bed.uapi("get=1\n\n")?;
        ensure!(settings(&before) == settings(&after), "{len} bytes of a request were applied");
    }
    client.connect().map(|_| ())
}

fn traffic_goes_on_while_the_configuration_is_read_and_written(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"before")?;
    let others = (0..4).map(|_| bed.admit(client.family())).collect::<Result<Vec<_>>>()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for other in &others {
            let is_over = &is_over;
            threads.push(scope.spawn(move || -> Result<u32> {
                let mut count = 0;
                // Once at least, however late it begins.
                while count == 0 || !is_over.load(Ordering::Relaxed) {
                    let changed = bed.uapi(&format!(
                        "set=1\npublic_key={}\nreplace_allowed_ips=true\nallowed_ip={}/32\nallowed_ip=10.{}.0.0/16\n\n",
                        hex(&other.secrets.public), other.inner.v4, 100 + count % 100
                    ))?;
                    let read = bed.uapi("get=1\n\n")?;
                    ensure!(errno(&changed)? == 0 && errno(&read)? == 0, "{changed:?}, {read:?}");
                    count += 1;
                }
                Ok(count)
            }));
        }
        let traffic = (0..150_u32).try_for_each(|number| {
            let payload = number.to_be_bytes();
            client.send(&session.seal(&client.packet(&service, &payload)))?;
            service.expect(&payload)?;
            service.send(client, &payload)?;
            let (_, _, inner) = client.data(&session, PATIENCE)?;
            ensure!(inner.payload == payload, "{:?}, not {payload:?}", inner.payload);
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        let counts = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<Vec<_>>>()?;
        ensure!(counts.iter().all(|count| *count > 0), "{counts:?} changes");
        traffic
    })
}

fn thousand_peers_are_read_back_exactly(bed: &Bed, client: &mut Client) -> Result<()> {
    const COUNT: usize = 1000;
    let mut expected = BTreeMap::new();
    let mut request = "set=1\n".to_owned();
    for number in 0..COUNT {
        let key = hex(&Secrets::generate([0; 32])?.public);
        let v4 = format!("10.{}.{}.0/24", 128 + number / 256, number % 256);
        let v6 = format!("fd77:{number:x}::/32");
        let preshared = format!("{number:064x}");
        write!(
            request,
            "public_key={key}\npreshared_key={preshared}\nendpoint=192.0.2.{}:{}\n\
             persistent_keepalive_interval=0\nreplace_allowed_ips=true\nallowed_ip={v4}\nallowed_ip={v6}\n",
            number % 200 + 20,
            10_000 + number
        )?;
        expected.insert(key, (preshared, v4, v6));
    }
    let before = bed.uapi("get=1\n\n")?;
    let answer = bed.uapi(&(request + "\n"))?;
    ensure!(errno(&answer)? == 0, "{answer}");
    let read = bed.uapi("get=1\n\n")?;
    let mut found = 0;
    for section in read.split("public_key=").skip(1) {
        let (key, rest) = section.split_once('\n').context("a key")?;
        let Some((preshared, v4, v6)) = expected.get(key) else { continue };
        found += 1;
        for line in [format!("preshared_key={preshared}"), format!("allowed_ip={v4}")] {
            ensure!(rest.lines().any(|found| found == line), "{line} is missing in {rest:?}");
        }
        let network: std::net::Ipv6Addr = v6.trim_end_matches("/32").parse()?;
        ensure!(rest.contains(&format!("allowed_ip={network}/32\n")), "{v6} is missing in {rest:?}");
    }
    ensure!(found == COUNT, "{found} of {COUNT} peers");
    let removal =
        expected.keys().fold(String::new(), |text, key| text + &format!("public_key={key}\nremove=true\n"));
    ensure!(errno(&bed.uapi(&format!("set=1\n{removal}\n"))?)? == 0, "they cannot be removed");
    ensure!(settings(&bed.uapi("get=1\n\n")?) == settings(&before), "something was left");
    client.connect().map(|_| ())
}

/// Brings the tunnel up or down, of which the gateway hears by a message; only ours tells when.
fn set_link(bed: &Bed, state: &str) -> Result<()> {
    bed.gateway.namespace.ip(&format!("link set {} {state}", bed.gateway.interface))?;
    if !bed.is_wgx() {
        thread::sleep(SILENCE * 2);
        return Ok(());
    }
    wait_until(&format!("the gateway knows that it is {state}"), PATIENCE, || {
        Ok(bed.gateway.status()?.value()["up"].as_bool() == Some(state == "up"))
    })
}

/// Late in the table: the tunnel's IPv6 address and route go with it.
fn tunnel_that_is_down_answers_nothing(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"up")?;
    set_link(bed, "down")?;
    while client.wire.receive(SILENCE)?.is_some() {}
    client.initiate()?;
    client.send(&session.seal(&client.packet(&service, b"down")))?;
    client.send(&session.keepalive())?;
    service.silence()?;
    client.silence(SILENCE)?;
    set_link(bed, "up")?;
    client.connect().context("up again").map(|_| ())
}
