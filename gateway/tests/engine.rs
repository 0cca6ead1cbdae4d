//! The engine on plain memory: every way out and every reason to drop, packet by packet.

mod laboratory;

use std::net::{IpAddr, SocketAddr};

use gateway::dataplane::counters::Verdict;
use laboratory::{
    CLIENT, CLIENT_MAC_HOP, LISTEN_PORT, Laboratory, OTHER, SERVER, Sent, ipv4, ipv6, opened, sealed,
};
use wireguard::{SessionEvent, Time};

use gateway::dataplane::mailbox::{QueuedHandshake, WorkerEvent};

#[test]
fn an_opened_packet_leaves_by_the_link_with_its_ttl_decremented() {
    let mut lab = Laboratory::new();
    let packet = ipv4(CLIENT.inner, SERVER, 100, 64);
    let sent = lab.inbound(&[sealed(&CLIENT, 0, &packet)]);
    let [Sent::Link { interface_index, frame }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(*interface_index, laboratory::DOWNLINK);
    assert_eq!(frame[..12], CLIENT_MAC_HOP);
    assert_eq!(frame[12..14], [0x08, 0x00]);
    assert_eq!(frame[14..], ipv4(CLIENT.inner, SERVER, 100, 63));
    assert_eq!(lab.count(Verdict::OpenedToLink), 1);
}

#[test]
fn padding_is_not_delivered() {
    let mut lab = Laboratory::new();
    for len in 28..60 {
        let packet = ipv4(CLIENT.inner, SERVER, len, 64);
        let sent = lab.inbound(&[sealed(&CLIENT, len as u64, &packet)]);
        let [Sent::Link { frame, .. }] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(frame.len(), 14 + len);
    }
}

#[test]
fn a_packet_for_this_host_or_an_unresolved_neighbour_goes_to_the_kernel_unchanged() {
    let mut lab = Laboratory::new();
    for destination in ["10.9.0.1", "10.9.0.77", "198.51.100.1"] {
        let packet = ipv4(CLIENT.inner, destination.parse().unwrap(), 60, 64);
        let counter = lab.next_counter();
        assert_eq!(
            lab.inbound(&[sealed(&CLIENT, counter, &packet)]),
            [Sent::Tunnel(packet)],
            "{destination}"
        );
    }
    assert_eq!(lab.count(Verdict::OpenedToTunnel), 3);
}

#[test]
fn what_a_router_must_answer_with_icmp_goes_to_the_kernel() {
    let mut lab = Laboratory::new();
    let ttl_spent = ipv4(CLIENT.inner, SERVER, 60, 1);
    assert_eq!(lab.inbound(&[sealed(&CLIENT, 0, &ttl_spent)]), [Sent::Tunnel(ttl_spent)]);
    let larger_than_the_link = ipv4(CLIENT.inner, SERVER, 1501, 64);
    assert_eq!(
        lab.inbound(&[sealed(&CLIENT, 1, &larger_than_the_link)]),
        [Sent::Tunnel(larger_than_the_link)]
    );
}

#[test]
fn what_no_router_forwards_goes_to_the_kernel() {
    let mut lab = Laboratory::with_default_route();
    for destination in ["224.0.0.251", "255.255.255.255", "169.254.7.7", "127.0.0.1"] {
        let packet = ipv4(CLIENT.inner, destination.parse().unwrap(), 60, 64);
        let counter = lab.next_counter();
        let sent = lab.inbound(&[sealed(&CLIENT, counter, &packet)]);
        assert_eq!(sent, [Sent::Tunnel(packet)], "{destination}");
    }
    let elsewhere = ipv4(CLIENT.inner, "198.51.100.1".parse().unwrap(), 60, 64);
    let counter = lab.next_counter();
    let sent = lab.inbound(&[sealed(&CLIENT, counter, &elsewhere)]);
    assert!(matches!(&sent[..], [Sent::Link { .. }]), "{sent:?}");
}

#[test]
fn one_peer_reaches_another_in_one_pass() {
    let mut lab = Laboratory::new();
    let packet = ipv4(CLIENT.inner, OTHER.inner, 200, 64);
    let sent = lab.inbound(&[sealed(&CLIENT, 0, &packet)]);
    let [Sent::Link { interface_index, frame }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(*interface_index, laboratory::UPLINK);
    assert_eq!(opened(&OTHER, frame), ipv4(CLIENT.inner, OTHER.inner, 200, 63));
    assert_eq!(lab.count(Verdict::OpenedToPeer), 1);
    assert_eq!(lab.count(Verdict::SealedToLink), 1);
}

#[test]
fn a_plain_packet_is_sealed_behind_the_path_s_headers() {
    let mut lab = Laboratory::new();
    for len in [28, 29, 100, 1419, 1420] {
        let packet = ipv4(SERVER, CLIENT.inner, len, 64);
        let sent = lab.outbound(std::slice::from_ref(&packet));
        let [Sent::Link { frame, .. }] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(opened(&CLIENT, frame), packet);
        let sealed_len = frame.len() - 14 - 20 - 8 - 32;
        assert_eq!(sealed_len, len.next_multiple_of(16).min(1420), "padding of {len}");
    }
}

#[test]
fn ipv6_inside_and_outside() {
    let mut lab = Laboratory::over_ipv6();
    let (client, server) = (laboratory::CLIENT_INNER_V6, laboratory::SERVER_V6);
    let mut datagram = sealed(&CLIENT, 0, &ipv6(client, server, 80, 64));
    datagram.source = "[2001:db8:7::2]:40000".parse().unwrap();
    let sent = lab.inbound(&[datagram]);
    let [Sent::Link { frame, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(frame[12..14], [0x86, 0xdd]);
    assert_eq!(frame[14..], ipv6(client, server, 80, 63));

    let packet = ipv6(server, client, 80, 64);
    let sent = lab.outbound(std::slice::from_ref(&packet));
    let [Sent::Link { frame, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(opened(&CLIENT, frame), packet);
}

#[test]
fn a_peer_without_a_fast_path_is_served_by_the_socket() {
    let mut lab = Laboratory::new();
    lab.forget_neighbours();
    let packet = ipv4(SERVER, CLIENT.inner, 100, 64);
    let sent = lab.outbound(std::slice::from_ref(&packet));
    let [Sent::Socket { remote, datagram }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(*remote, CLIENT.outer());
    assert_eq!(laboratory::opened_datagram(&CLIENT, datagram), packet);
    assert_eq!(lab.count(Verdict::SealedToSocket), 1);
}

#[test]
fn nonces_are_never_used_twice() {
    let mut lab = Laboratory::new();
    let mut counters = std::collections::BTreeSet::new();
    for _ in 0..10 {
        for sent in lab.outbound(&vec![ipv4(SERVER, CLIENT.inner, 100, 64); 64]) {
            let Sent::Link { frame, .. } = sent else { panic!("slow path") };
            assert!(counters.insert(frame[14 + 20 + 8 + 8..][..8].to_vec()));
        }
    }
    assert_eq!(counters.len(), 640);
}

#[test]
fn a_batch_of_mixed_peers_and_faults_loses_only_the_faults() {
    let mut lab = Laboratory::new();
    let mut datagrams = Vec::new();
    for counter in 0..20 {
        let (peer, source) = if counter % 3 == 0 { (&OTHER, OTHER.inner) } else { (&CLIENT, CLIENT.inner) };
        datagrams.push(sealed(peer, counter, &ipv4(source, SERVER, 100 + counter as usize, 64)));
    }
    let last = datagrams[4].bytes.len() - 1;
    datagrams[4].bytes[last] ^= 1;
    datagrams[9].bytes[4..8].fill(0xff);
    datagrams.push(datagrams[0].clone());
    assert_eq!(lab.inbound(&datagrams).len(), 18);
    assert_eq!(lab.count(Verdict::DropNotAuthentic), 1);
    assert_eq!(lab.count(Verdict::DropUnknownIndex), 1);
    assert_eq!(lab.count(Verdict::DropReplayed), 1);
}

#[test]
fn a_forged_packet_moves_neither_window_nor_endpoint() {
    let mut lab = Laboratory::new();
    let mut forged = sealed(&CLIENT, 9000, &ipv4(CLIENT.inner, SERVER, 60, 64));
    forged.bytes[20] ^= 1;
    forged.source = "203.0.113.200:9".parse().unwrap();
    assert_eq!(lab.inbound(&[forged]), []);
    assert!(lab.events().is_empty());
    assert_eq!(lab.inbound(&[sealed(&CLIENT, 0, &ipv4(CLIENT.inner, SERVER, 60, 64))]).len(), 1);
}

#[test]
fn replayed_and_too_old_counters_are_dropped() {
    let mut lab = Laboratory::new();
    let packet = ipv4(CLIENT.inner, SERVER, 60, 64);
    assert_eq!(lab.inbound(&[sealed(&CLIENT, 9000, &packet)]).len(), 1);
    assert_eq!(lab.inbound(&[sealed(&CLIENT, 9000, &packet)]), []);
    assert_eq!(lab.inbound(&[sealed(&CLIENT, 9000 - 8129, &packet)]), []);
    assert_eq!(lab.inbound(&[sealed(&CLIENT, 9000 - 8128, &packet)]).len(), 1);
    assert_eq!(lab.inbound(&[sealed(&CLIENT, u64::MAX, &packet)]), []);
    assert_eq!(lab.count(Verdict::DropReplayed), 1);
    assert_eq!(lab.count(Verdict::DropTooOld), 1);
    assert_eq!(lab.count(Verdict::DropCounterLimit), 1);
}

#[test]
fn a_source_of_another_peer_is_dropped_but_the_endpoint_roams() {
    let mut lab = Laboratory::new();
    let mut datagram = sealed(&CLIENT, 0, &ipv4(OTHER.inner, SERVER, 60, 64));
    datagram.source = "203.0.113.200:9".parse().unwrap();
    assert_eq!(lab.inbound(std::slice::from_ref(&datagram)), []);
    assert_eq!(lab.count(Verdict::DropSourceNotAllowed), 1);
    let roamed = lab.events().into_iter().any(|event| {
        matches!(event, WorkerEvent::Session(SessionEvent::Roamed { endpoint, .. }) if endpoint.remote == datagram.source)
    });
    assert!(roamed);
}

#[test]
fn a_reply_follows_a_roaming_peer_before_control_has_heard_of_it() {
    let mut lab = Laboratory::new();
    let mut datagram = sealed(&CLIENT, 0, &ipv4(CLIENT.inner, SERVER, 60, 64));
    datagram.source = "203.0.113.200:9".parse().unwrap();
    assert_eq!(lab.inbound(std::slice::from_ref(&datagram)).len(), 1);
    let sent = lab.outbound(&[ipv4(SERVER, CLIENT.inner, 60, 64)]);
    assert!(matches!(sent[..], [Sent::Socket { remote, .. }] if remote == datagram.source), "{sent:?}");
    // Control puts it back on the fast path.
    lab.set_endpoint(&CLIENT, datagram.source);
    let sent = lab.outbound(&[ipv4(SERVER, CLIENT.inner, 60, 64)]);
    assert!(matches!(sent[..], [Sent::Link { .. }]), "{sent:?}");
}

#[test]
fn our_own_datagrams_do_not_enter_the_tunnel_of_the_peer_they_are_for() {
    let mut lab = Laboratory::new();
    let endpoint = SocketAddr::new(CLIENT.inner, 7);
    lab.set_endpoint(&CLIENT, endpoint);
    let own: IpAddr = "192.0.2.1".parse().unwrap();
    let datagram = |from: IpAddr, source: u16, destination: u16, fragment: u8| {
        let mut packet = ipv4(from, CLIENT.inner, 60, 64);
        packet[6] = fragment;
        packet[9] = 17;
        packet[20..22].copy_from_slice(&source.to_be_bytes());
        packet[22..24].copy_from_slice(&destination.to_be_bytes());
        packet
    };
    let more_fragments = 0x20;
    for looping in [datagram(own, LISTEN_PORT, 7, 0), datagram(own, LISTEN_PORT, 7, more_fragments)] {
        assert_eq!(lab.outbound(&[looping]), []);
    }
    assert_eq!(lab.count(Verdict::DropLoop), 2);
    let others = [
        datagram(own, LISTEN_PORT, 8, 0),
        datagram(own, 1, 7, 0),
        datagram(own, LISTEN_PORT, 7, 1),
        // Another WireGuard behind this host, on the same port, to the same peer.
        datagram(SERVER, LISTEN_PORT, 7, 0),
    ];
    for other in others {
        assert_eq!(lab.outbound(&[other]).len(), 1);
    }
}

#[test]
fn our_own_datagrams_do_not_go_round_by_way_of_other_peers() {
    let mut lab = Laboratory::new();
    let own: IpAddr = "192.0.2.1".parse().unwrap();
    let to_client = |port: u16| {
        let mut packet = ipv4(own, OTHER.inner, 60, 64);
        packet[9] = 17;
        packet[20..22].copy_from_slice(&LISTEN_PORT.to_be_bytes());
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet
    };
    // The client is behind the other peer.
    lab.set_endpoint(&CLIENT, SocketAddr::new(OTHER.inner, 7));
    assert_eq!(lab.outbound(&[to_client(7)]).len(), 1);
    // And the other peer behind the client.
    lab.set_endpoint(&OTHER, SocketAddr::new(CLIENT.inner, 9));
    assert_eq!(lab.outbound(&[to_client(7)]), []);
    assert_eq!(lab.count(Verdict::DropLoop), 1);
    // To somebody else behind them: it runs into their loop, and the next header around it is recognised.
    assert_eq!(lab.outbound(&[to_client(8)]).len(), 1);
}

#[test]
fn the_first_packet_confirms_and_is_noted_once() {
    let mut lab = Laboratory::new();
    let packet = ipv4(CLIENT.inner, SERVER, 60, 64);
    lab.inbound(&[sealed(&CLIENT, 0, &packet)]);
    let confirmed = |events: Vec<WorkerEvent>| {
        events.iter().filter(|e| matches!(e, WorkerEvent::Session(SessionEvent::Confirmed { .. }))).count()
    };
    assert_eq!(confirmed(lab.events()), 1);
    lab.inbound(&[sealed(&CLIENT, 1, &packet)]);
    assert_eq!(confirmed(lab.events()), 0);
}

#[test]
fn keepalives_are_counted_and_go_nowhere() {
    let mut lab = Laboratory::new();
    assert_eq!(lab.inbound(&[sealed(&CLIENT, 0, &[])]), []);
    assert_eq!(lab.count(Verdict::KeepaliveReceived), 1);
}

#[test]
fn opened_bytes_that_are_no_ip_packet_are_dropped() {
    let mut lab = Laboratory::new();
    let mut longer_than_it_is = ipv4(CLIENT.inner, SERVER, 60, 64);
    longer_than_it_is[3] = 200;
    for (counter, bytes) in
        [vec![0; 64], vec![0xff; 64], vec![0x45; 4], longer_than_it_is].into_iter().enumerate()
    {
        assert_eq!(lab.inbound(&[sealed(&CLIENT, counter as u64, &bytes)]), []);
    }
    assert_eq!(lab.count(Verdict::DropInnerMalformed), 4);
}

#[test]
fn congestion_marks_cross_the_tunnel_both_ways() {
    let mut lab = Laboratory::new();
    let mut ect0 = ipv4(CLIENT.inner, SERVER, 60, 64);
    laboratory::set_tos(&mut ect0, 0xb8 | 0b10);
    let mut marked = sealed(&CLIENT, 0, &ect0);
    marked.ecn = 0b11;
    let sent = lab.inbound(&[marked]);
    let [Sent::Link { frame, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(frame[15], 0xb8 | 0b11);

    let mut not_ect = sealed(&CLIENT, 1, &ipv4(CLIENT.inner, SERVER, 60, 64));
    not_ect.ecn = 0b11;
    assert_eq!(lab.inbound(&[not_ect]), []);
    assert_eq!(lab.count(Verdict::DropEcn), 1);

    let mut outgoing = ipv4(SERVER, CLIENT.inner, 60, 64);
    laboratory::set_tos(&mut outgoing, 0xb8 | 0b10);
    let sent = lab.outbound(&[outgoing]);
    let [Sent::Link { frame, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(frame[15], 0b10, "ECN is copied, DSCP is not");
}

#[test]
fn handshakes_are_queued_for_their_threads_whole() {
    let mut lab = Laboratory::new();
    let mut initiation = vec![0; 148];
    initiation[0] = 1;
    assert_eq!(lab.inbound(&[laboratory::Arriving::from_client(initiation.clone())]), []);
    let queued = lab.handshakes();
    let [QueuedHandshake { datagram, source }] = &queued[..] else { panic!("{queued:?}") };
    assert_eq!((datagram, source.remote), (&initiation, CLIENT.outer()));
    assert_eq!(lab.count(Verdict::HandshakePassed), 1);
}

#[test]
fn noise_is_malformed() {
    let mut lab = Laboratory::new();
    for len in [0, 1, 3, 4, 16, 31, 147, 149, 1500] {
        lab.inbound(&[laboratory::Arriving::from_client(vec![0x5a; len])]);
        lab.inbound(&[laboratory::Arriving::from_client(vec![0; len])]);
    }
    let mut short_data = vec![0; 31];
    short_data[0] = 4;
    lab.inbound(&[laboratory::Arriving::from_client(short_data)]);
    assert_eq!(lab.count(Verdict::DropMalformed), 19);
    assert!(lab.events().is_empty());
}

#[test]
fn an_expired_session_opens_and_seals_nothing() {
    let mut lab = Laboratory::new();
    lab.now = Time(lab.now.0 + 181_000_000_000);
    assert_eq!(lab.inbound(&[sealed(&CLIENT, 0, &ipv4(CLIENT.inner, SERVER, 60, 64))]), []);
    assert_eq!(lab.count(Verdict::DropExpired), 1);
    let packet = ipv4(SERVER, CLIENT.inner, 60, 64);
    assert_eq!(lab.outbound(std::slice::from_ref(&packet)), []);
    let staged = lab
        .events()
        .into_iter()
        .any(|event| matches!(event, WorkerEvent::Stage { inner, .. } if inner == packet));
    assert!(staged);
    assert_eq!(lab.count(Verdict::Staged), 1);
}

#[test]
fn packets_for_nobody_and_for_a_peer_without_endpoint_are_dropped() {
    let mut lab = Laboratory::new();
    assert_eq!(lab.outbound(&[ipv4(SERVER, "192.0.2.99".parse().unwrap(), 60, 64)]), []);
    assert_eq!(lab.count(Verdict::DropNoPeer), 1);
    lab.forget_endpoints();
    assert_eq!(lab.outbound(&[ipv4(SERVER, CLIENT.inner, 60, 64)]), []);
    assert_eq!(lab.count(Verdict::DropNoEndpoint), 1);
    let told = lab.unreachable();
    assert!(told.len() == 2 && told.iter().all(|error| error.to == SERVER), "{told:?}");
    assert_eq!(lab.outbound(&[vec![0x60; 10]]), []);
    assert_eq!(lab.count(Verdict::DropInnerMalformed), 1);
}

#[test]
fn an_old_session_asks_for_its_successor_once_in_a_while() {
    let mut lab = Laboratory::new_as_initiator();
    lab.now = Time(lab.now.0 + 121_000_000_000);
    for _ in 0..50 {
        assert_eq!(lab.outbound(&[ipv4(SERVER, CLIENT.inner, 60, 64)]).len(), 1);
    }
    let asked = lab
        .events()
        .iter()
        .filter(|e| matches!(e, WorkerEvent::Session(SessionEvent::RekeyOnSend { .. })))
        .count();
    assert_eq!(asked, 1);
}
