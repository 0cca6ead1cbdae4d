//! Requests as clients and fools write them.

use std::fmt::Write;

use proptest::prelude::*;
use wireguard::{Endpoint, PeerId, PeerStatus, UnixTime};

use super::*;
use crate::control::uapi::format::{DeviceView, format_view};

const KEY: &str = "e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a";
const OTHER: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";

fn set(lines: &str) -> Result<DeviceSettings, UapiError> {
    match parse_request(format!("set=1\n{lines}\n").as_bytes())? {
        Request::Set(settings) => Ok(*settings),
        Request::Get => panic!("a set came back as a get"),
    }
}

#[test]
fn a_set_is_read_whole() {
    let settings = set(&format!(
        "private_key={KEY}\nlisten_port=12912\nfwmark=51820\nreplace_peers=true\n\
         public_key={OTHER}\npreshared_key={KEY}\nprotocol_version=1\nreplace_allowed_ips=true\n\
         allowed_ip=192.168.4.4/32\nallowed_ip=-10.1.2.3/8\nallowed_ip=fd00::1/64\nendpoint=[abcd:23::33]:51820\n\
         persistent_keepalive_interval=111\npublic_key={KEY}\nremove=true\n"
    ))
    .unwrap();
    assert_eq!(settings.listen_port, Some(12912));
    assert_eq!(settings.fwmark, Some(51820));
    assert!(settings.change.replace_peers);
    assert!(matches!(settings.change.private_key, PrivateKeyChange::Set(_)));
    let [first, second] = settings.change.peers.as_slice() else { panic!("two peers") };
    assert_eq!(first.public_key.as_bytes()[0], 0xb8);
    assert!(first.preshared_key.as_ref().unwrap().is_set());
    assert!(first.replace_allowed_ips && !first.remove && !first.update_only);
    assert_eq!(first.endpoint, Some("[abcd:23::33]:51820".parse().unwrap()));
    assert_eq!(first.persistent_keepalive, Some(111));
    assert_eq!(
        first.allowed_ips,
        [
            ("192.168.4.4/32".parse().unwrap(), AllowedIpAction::Add),
            ("10.0.0.0/8".parse().unwrap(), AllowedIpAction::Remove),
            ("fd00::/64".parse().unwrap(), AllowedIpAction::Add),
        ]
    );
    assert!(second.remove);
}

#[test]
fn an_all_zero_private_key_clears_it() {
    let settings = set(&format!("private_key={}\n", "0".repeat(64))).unwrap();
    assert!(matches!(settings.change.private_key, PrivateKeyChange::Clear));
}

#[test]
fn an_empty_set_changes_nothing() {
    let settings = set("").unwrap();
    assert!(settings.listen_port.is_none() && settings.fwmark.is_none() && settings.change.peers.is_empty());
}

#[test]
fn an_endpoint_may_name_its_interface() {
    let settings = set(&format!("public_key={KEY}\nendpoint=[fe80::1%lo]:7\n")).unwrap();
    let Some(SocketAddr::V6(endpoint)) = settings.change.peers[0].endpoint else { panic!("IPv6") };
    assert_eq!((endpoint.scope_id(), endpoint.port()), (1, 7));
}

#[test]
fn each_bad_line_has_its_errno() {
    let peer = format!("public_key={KEY}\n");
    let table = [
        ("private_key\n".to_owned(), -libc::EPROTO),
        ("private_key=\n".to_owned(), -libc::EINVAL),
        (format!("private_key={}\n", &KEY[1..]), -libc::EINVAL),
        (format!("private_key={}g\n", &KEY[1..]), -libc::EINVAL),
        (format!("private_key={KEY}0\n"), -libc::EINVAL),
        ("listen_port=65536\n".to_owned(), -libc::EINVAL),
        ("listen_port=+1\n".to_owned(), -libc::EINVAL),
        ("listen_port=\n".to_owned(), -libc::EINVAL),
        ("fwmark=4294967296\n".to_owned(), -libc::EINVAL),
        ("replace_peers=false\n".to_owned(), -libc::EINVAL),
        ("no_such_key=1\n".to_owned(), -libc::EINVAL),
        ("=1\n".to_owned(), -libc::EINVAL),
        ("endpoint=1.2.3.4:5\n".to_owned(), -libc::EINVAL),
        (format!("public_key={}\n", &KEY[2..]), -libc::EINVAL),
        (peer.clone() + "listen_port=1\n", -libc::EINVAL),
        (peer.clone() + "endpoint=1.2.3.4\n", -libc::EINVAL),
        (peer.clone() + "endpoint=host.example:1\n", -libc::EINVAL),
        (peer.clone() + "endpoint=[fe80::1%no-such-link]:1\n", -libc::EINVAL),
        (peer.clone() + "allowed_ip=1.2.3.4\n", -libc::EINVAL),
        (peer.clone() + "allowed_ip=1.2.3.4/33\n", -libc::EINVAL),
        (peer.clone() + "allowed_ip=1.2.3.4/+8\n", -libc::EINVAL),
        (peer.clone() + "persistent_keepalive_interval=70000\n", -libc::EINVAL),
        (peer.clone() + "protocol_version=2\n", -libc::EINVAL),
        (peer.clone() + "remove=1\n", -libc::EINVAL),
        (format!("{}={KEY}\n", "k".repeat(LINE_LEN_MAX)), -libc::EINVAL),
    ];
    for (lines, errno) in table {
        let error = set(&lines).expect_err(&lines);
        assert_eq!(error.errno(), errno, "{lines}");
        assert!(!error.to_string().contains(&KEY[..16]), "{error} tells a key");
    }
}

#[test]
fn a_secret_in_the_place_of_a_key_is_not_told() {
    let told = |line: &str| set(&format!("{line}\n")).expect_err(line).to_string();
    assert!(told("no_such_key=1").contains("\"no_such_key\""));
    let secret = "WAmgVYXkbT2bCtdcDwolI88/iVi/aV3/PHcUBTQSYmo=";
    for line in [secret, &secret[20..], &format!("{KEY}="), &format!("{}=1", &KEY[..32]), &"k".repeat(33)] {
        let error = told(&format!("{line}=1"));
        assert!(!error.contains(&line[..8]), "{error}");
    }
}

#[test]
fn an_unknown_operation_and_a_tail_after_get_are_invalid() {
    for request in ["", "\n", "get\n\n", "get=2\n\n", "set\n\n", "errno=0\n\n", "get=1", "get=1\n", "set=1\n"]
    {
        assert_eq!(
            parse_request(request.as_bytes()).unwrap_err(),
            UapiError::UnknownOperation,
            "{request:?}"
        );
    }
    assert_eq!(parse_request(b"get=1\nx\n\n").unwrap_err(), UapiError::TrailingGet);
}

#[test]
fn the_largest_requests_that_are_promised_fit() {
    let mut one_peer = format!("public_key={KEY}\nreplace_allowed_ips=true\n");
    for number in 0..255 * 256_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        writeln!(one_peer, "allowed_ip=255.255.{high}.{low}/32").unwrap();
        writeln!(one_peer, "allowed_ip=ffff:ffff:ffff:ffff:ffff:ffff:ffff:{number:x}/128").unwrap();
    }
    let settings = set(&one_peer).unwrap();
    assert_eq!(settings.change.peers[0].allowed_ips.len(), 255 * 256 * 2);

    let mut many_peers = "replace_peers=true\n".to_owned();
    for number in 0..100_000_u32 {
        write!(
            many_peers,
            "public_key={number:064x}\npreshared_key={KEY}\nendpoint=[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535\n\
             persistent_keepalive_interval=65535\nreplace_allowed_ips=true\n\
             allowed_ip=ffff:ffff:ffff:ffff:ffff:ffff:{:x}:{:x}/128\nallowed_ip=ffff:ffff:ffff:ffff::/64\n",
            number >> 16,
            number & 0xffff
        )
        .unwrap();
    }
    assert_eq!(set(&many_peers).unwrap().change.peers.len(), 100_000);
}

#[test]
fn the_parser_reads_on_to_the_end_of_a_bad_request() {
    let mut parser = RequestParser::default();
    assert!(parser.push_line(b"set=1").is_none());
    assert!(parser.push_line(b"nonsense").is_none());
    assert!(parser.push_line(b"listen_port=1").is_none());
    let answer = parser.push_line(b"").unwrap();
    assert_eq!(answer.unwrap_err(), UapiError::NoEquals { line: 2 });
}

fn peer_status(seed: u8, prefixes: Vec<IpNet>, endpoint: Option<SocketAddr>) -> PeerStatus {
    PeerStatus {
        id: PeerId(u32::from(seed)),
        public_key: PublicKey::from_bytes([seed; 32]),
        preshared_key: PresharedKey::from_bytes([seed / 2; 32]),
        endpoint: endpoint.map(Endpoint::from),
        last_handshake: (seed & 1 == 1).then_some(UnixTime { secs: 1_700_000_000, nanos: 5 }),
        rx_bytes: 7,
        tx_bytes: 9,
        persistent_keepalive: u16::from(seed),
        allowed_ips: prefixes,
    }
}

#[test]
fn a_get_has_the_keys_in_the_order_of_the_protocol() {
    let private_key = PrivateKey::from_bytes([0x58; 32]);
    let view = DeviceView { private_key: Some(&private_key), listen_port: 51820, fwmark: 9 };
    let peer = peer_status(3, vec!["10.0.0.0/24".parse().unwrap()], Some("[::1]:5".parse().unwrap()));
    let hex = |byte: u8| format!("{byte:02x}").repeat(32);
    let mut expected = format!("private_key={}\nlisten_port=51820\nfwmark=9\n", hex(0x58));
    write!(
        expected,
        "public_key={}\npreshared_key={}\nprotocol_version=1\nendpoint=[::1]:5\n",
        hex(3),
        hex(1)
    )
    .unwrap();
    expected
        .push_str("last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\ntx_bytes=9\nrx_bytes=7\n");
    expected.push_str("persistent_keepalive_interval=3\nallowed_ip=10.0.0.0/24\nerrno=0\n\n");
    assert_eq!(*format_view(&view, &[peer]), expected);
}

#[test]
fn a_get_of_nothing_is_only_the_errno() {
    let view = DeviceView { private_key: None, listen_port: 0, fwmark: 0 };
    assert_eq!(*format_view(&view, &[]), "errno=0\n\n");
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    any::<(IpAddr, u8)>().prop_map(|(address, prefix_len)| {
        let max = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, prefix_len % (max + 1)).unwrap().trunc()
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse_request(&bytes);
        let mut set = b"set=1\n".to_vec();
        set.extend_from_slice(&bytes);
        set.extend_from_slice(b"\n\n");
        let _ = parse_request(&set);
    }

    #[test]
    fn no_line_made_of_known_words_makes_the_parser_panic(
        lines in proptest::collection::vec(
            ("(public_key|allowed_ip|endpoint|fwmark|remove|preshared_key|private_key)", "[0-9a-f:./%-]{0,70}"), 0..8),
    ) {
        let lines: Vec<String> = lines.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let text = lines.join("\n") + "\n";
        let _ = set(&text);
    }

    #[test]
    fn what_get_writes_set_reads_back(
        prefixes in proptest::collection::vec(any_prefix(), 0..5),
        endpoint in any::<Option<SocketAddr>>(),
        listen_port in any::<u16>(),
        fwmark in any::<u32>(),
        seed in 1..=u8::MAX,
    ) {
        // A flow label is no part of an endpoint's text.
        let endpoint = endpoint.map(|endpoint| SocketAddr::new(endpoint.ip(), endpoint.port()));
        let private_key = PrivateKey::from_bytes([seed; 32]);
        let peer = peer_status(seed, prefixes.clone(), endpoint);
        let text = format_view(&DeviceView { private_key: Some(&private_key), listen_port, fwmark }, &[peer]);
        let settable: String = text
            .lines()
            .filter(|line| !line.is_empty())
            .filter(|line| !["last_", "tx_", "rx_", "errno"].iter().any(|start| line.starts_with(start)))
            .fold(String::new(), |text, line| text + line + "\n");
        let settings = set(&settable).unwrap();
        prop_assert_eq!(settings.listen_port.unwrap_or(0), listen_port);
        prop_assert_eq!(settings.fwmark.unwrap_or(0), fwmark);
        let is_same_key = matches!(&settings.change.private_key, PrivateKeyChange::Set(key) if *key == private_key);
        prop_assert!(is_same_key);
        let peer = &settings.change.peers[0];
        prop_assert_eq!(peer.endpoint, endpoint);
        prop_assert_eq!(peer.persistent_keepalive, Some(u16::from(seed)));
        let read: Vec<IpNet> = peer.allowed_ips.iter().map(|(prefix, _)| *prefix).collect();
        prop_assert_eq!(read, prefixes);
    }
}
