//! Transport data: which packets cross, in which order things are checked, and what it looks like (P4, P7, P8, P9).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{
    scripted::{
        Bed, Case, Client, Service, Session,
        client::{PATIENCE, SILENCE},
        inner,
        layout::{COUNTER, INITIATION, KEEPALIVE_LEN, TRANSPORT_HEADER_LEN, kind},
    },
    site::Family,
};

/// Distance behind the greatest counter at which a packet is still accepted.
const WINDOW: u64 = 8128;

pub const CASES: &[Case] = tests::cases! {
    packets_of_both_families_cross_both_ways,
    unknown_index_is_dropped,
    index_of_another_peer_is_dropped,
    nulled_packet_is_dropped,
    changed_packets_are_dropped,
    reserved_bytes_of_data_are_refused,
    short_data_is_dropped,
    keepalive_gets_no_answer,
    responder_sends_nothing_before_it_is_confirmed,
    first_packet_confirms_and_is_delivered,
    replay_window_accepts_each_counter_once,
    replay_window_ends_8128_behind,
    forged_counter_does_not_move_the_window,
    counters_below_the_limit_are_accepted,
    previous_session_is_accepted_after_a_rekey,
    session_before_the_previous_is_dropped,
    unconfirmed_session_is_replaced,
    many_sessions_leave_only_the_last,
    gateway_sends_under_the_confirmed_session,
    first_answer_goes_under_the_session_just_confirmed,
    messages_are_padded_to_16_with_zeros,
    padding_ends_at_the_mtu,
    unpadded_and_overpadded_packets_are_delivered,
    inner_length_beyond_the_payload_is_dropped,
    inner_length_shorter_than_its_header_is_dropped,
    unknown_inner_versions_are_dropped,
    truncated_inner_headers_are_dropped,
    inner_source_of_another_peer_is_dropped,
    inner_source_of_nobody_is_dropped,
};

/// A session with everything it takes to see what is delivered.
struct Link<'a> {
    client: &'a Client,
    service: Service,
    session: Session,
}

impl<'a> Link<'a> {
    fn open(bed: &Bed, client: &'a mut Client) -> Result<Self> {
        let service = bed.service(client.family())?;
        let session = client.connect()?;
        Ok(Self { client, service, session })
    }

    /// Sends each message, then a right packet: nothing but that is delivered, and nothing is answered.
    fn dropped(&mut self, messages: &[Vec<u8>]) -> Result<()> {
        for message in messages {
            self.client.send(message)?;
        }
        self.delivered(b"the right packet after the wrong ones")?;
        self.service.silence()?;
        self.client.silence(Duration::from_millis(1))
    }

    fn delivered(&mut self, payload: &[u8]) -> Result<()> {
        let packet = self.client.packet(&self.service, payload);
        self.client.send(&self.session.seal(&packet))?;
        self.service.expect(payload).map(|_| ())
    }

    fn packet(&self, payload: &[u8]) -> Vec<u8> {
        self.client.packet(&self.service, payload)
    }

    /// A counter that was not used yet.
    fn counter(&mut self) -> u64 {
        self.session.next_counter += 1;
        self.session.next_counter - 1
    }

    /// Seals these bytes as they are, under a fresh counter.
    fn seal_raw(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let counter = self.counter();
        self.session.seal_at(counter, plaintext)
    }
}

fn packets_of_both_families_cross_both_ways(bed: &Bed, client: &mut Client) -> Result<()> {
    for outer in Family::BOTH {
        let mut other = bed.admit(outer)?;
        let mut session = other.connect()?;
        for inner in Family::BOTH {
            let service = bed.service(inner)?;
            other
                .exchange(&mut session, &service, format!("{inner:?} in {outer:?}").as_bytes())
                .with_context(|| format!("{inner:?} in {outer:?}"))?;
        }
    }
    client.connect().map(|_| ())
}

fn unknown_index_is_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    let mut wrong = link.session.clone();
    let packet = link.packet(b"for an unknown index");
    let messages: Vec<_> = [0, 1, u32::MAX, wrong.remote_index ^ 1, wrong.remote_index ^ 0x8000_0000]
        .into_iter()
        .map(|index| {
            wrong.remote_index = index;
            wrong.seal(&packet)
        })
        .collect();
    link.dropped(&messages)
}

fn index_of_another_peer_is_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut other = bed.admit(client.family())?;
    let others = other.connect()?;
    let mut link = Link::open(bed, client)?;
    let mut crossed = link.session.clone();
    crossed.remote_index = others.remote_index;
    let message = crossed.seal_at(7, &link.packet(b"under another peer's index"));
    link.dropped(&[message])?;
    // Nor did it disturb the other's session.
    let mut link = Link { client: &other, service: bed.service(other.family())?, session: others };
    link.delivered(b"the other peer")
}

fn nulled_packet_is_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    let mut message = link.session.clone().seal(&link.packet(b"nulled"));
    message[TRANSPORT_HEADER_LEN..].fill(0);
    let mut keepalive = link.session.clone().keepalive();
    keepalive[TRANSPORT_HEADER_LEN..].fill(0);
    link.dropped(&[message, keepalive])
}

fn changed_packets_are_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    let packet = link.packet(b"changed");
    let message = link.session.seal(&packet);
    let places =
        [COUNTER.start, COUNTER.end - 1, TRANSPORT_HEADER_LEN, 40, message.len() - 16, message.len() - 1];
    let mut messages: Vec<_> = places
        .into_iter()
        .map(|place| {
            let mut changed = message.clone();
            changed[place] ^= 0x10;
            changed
        })
        .collect();
    messages.push(message[..message.len() - 1].to_vec());
    messages.push([&message[..], &[0]].concat());
    link.dropped(&messages)
}

fn reserved_bytes_of_data_are_refused(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    let packet = link.packet(b"reserved");
    let messages: Vec<_> = (1..4)
        .map(|byte| {
            let mut message = link.session.seal(&packet);
            message[byte] = 1;
            message
        })
        .collect();
    link.dropped(&messages)
}

fn short_data_is_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    let message = link.session.clone().keepalive();
    let messages: Vec<_> = (4..KEEPALIVE_LEN).map(|len| message[..len].to_vec()).collect();
    link.dropped(&messages)
}

fn keepalive_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let mut session = client.connect()?;
    for _ in 0..3 {
        client.send(&session.keepalive())?;
    }
    client.silence(SILENCE)
}

fn responder_sends_nothing_before_it_is_confirmed(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.handshake()?;
    for _ in 0..3 {
        service.send(client, b"staged")?;
    }
    if let Some(datagram) = client.wire.receive(SILENCE)? {
        // It may ask for a session of its own, but has none to send under.
        ensure!(kind(&datagram.bytes) == INITIATION, "type {} before confirmation", kind(&datagram.bytes));
    }
    client.send(&session.keepalive())?;
    for _ in 0..3 {
        let (_, _, inner) = client.data(&session, PATIENCE)?;
        ensure!(inner.payload == b"staged", "{:?}", inner.payload);
    }
    Ok(())
}

fn first_packet_confirms_and_is_delivered(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.handshake()?;
    client.exchange(&mut session, &service, b"first")
}

/// Sends `counters` and compares what is delivered with `expected`.
fn counters_delivered(link: &mut Link<'_>, counters: &[u64], expected: &[u64]) -> Result<()> {
    for burst in counters.chunks(16) {
        for counter in burst {
            let packet = link.packet(&counter.to_be_bytes());
            link.client.send(&link.session.seal_at(*counter, &packet))?;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut delivered = Vec::new();
    while delivered.len() < expected.len()
        && let Some(datagram) = link.service.wire.receive(PATIENCE)?
    {
        delivered.push(u64::from_be_bytes(datagram.bytes.try_into().unwrap_or_default()));
    }
    ensure!(delivered == expected, "{counters:?} were sent, {delivered:?} delivered, not {expected:?}");
    link.service.silence()
}

fn replay_window_accepts_each_counter_once(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    // 0 was the keepalive.
    let sent = [0, 1, 1, 9, 8, 7, 7, 2, 6, 5, 5, 3, 4, 2, 16, 15, 16, 2000, 1999, 2000, 17, 9];
    let delivered = [1, 9, 8, 7, 2, 6, 5, 3, 4, 16, 15, 2000, 1999, 17];
    counters_delivered(&mut link, &sent, &delivered)
}

fn replay_window_ends_8128_behind(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    let top = 100_000;
    let sent =
        [top, top - WINDOW, top - WINDOW - 1, 1, top - WINDOW, top + 1, top - WINDOW, top - WINDOW + 1];
    counters_delivered(&mut link, &sent, &[top, top - WINDOW, top + 1, top - WINDOW + 1])
}

fn forged_counter_does_not_move_the_window(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    let packet = link.packet(b"forged");
    let mut forged = Vec::new();
    for counter in [1_000_000, u64::MAX >> 1, u64::MAX] {
        let mut message = link.session.seal_at(counter, &packet);
        let last = message.len() - 1;
        message[last] ^= 1;
        forged.push(message);
    }
    // A right message whose counter was replaced, too.
    let mut moved = link.session.seal_at(1, &packet);
    moved[COUNTER].copy_from_slice(&1_000_000_u64.to_le_bytes());
    forged.push(moved);
    link.dropped(&forged)
}

fn counters_below_the_limit_are_accepted(bed: &Bed, client: &mut Client) -> Result<()> {
    // The kernel's limit leaves room for its window; the reference rounds that up to 2^13.
    let limit = if bed.is_wgx() { u64::MAX - WINDOW - 1 } else { u64::MAX - (1 << 13) };
    let mut link = Link::open(bed, client)?;
    let sent = [limit, u64::MAX, limit - 1, limit, limit + 1, u64::MAX, limit - 2];
    counters_delivered(&mut link, &sent, &[limit - 1, limit - 2])
}

fn previous_session_is_accepted_after_a_rekey(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut old = client.connect()?;
    let mut link = Link::open(bed, client)?;
    link.delivered(b"under the new session")?;
    let message = old.seal(&link.packet(b"under the old session"));
    link.client.send(&message)?;
    link.service.expect(b"under the old session")?;
    link.delivered(b"under the new session again")
}

fn session_before_the_previous_is_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut oldest = client.connect()?;
    let mut previous = client.connect()?;
    let mut link = Link::open(bed, client)?;
    link.delivered(b"under the third session")?;
    let stale = oldest.seal(&link.packet(b"under the first session"));
    link.dropped(&[stale])?;
    link.client.send(&previous.seal(&link.packet(b"under the second session")))?;
    link.service.expect(b"under the second session").map(|_| ())
}

fn unconfirmed_session_is_replaced(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut current = client.connect()?;
    let mut unconfirmed = client.handshake()?;
    let latest = client.handshake()?;
    let service = bed.service(client.family())?;
    let mut link = Link { client, service, session: latest };
    // The response to the third initiation replaced the session that nobody used.
    let stale = unconfirmed.seal(&link.packet(b"under the replaced session"));
    link.client.send(&stale)?;
    link.client.send(&current.seal(&link.packet(b"under the current session")))?;
    link.service.expect(b"under the current session")?;
    link.delivered(b"under the latest session")
}

fn many_sessions_leave_only_the_last(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut sessions = Vec::new();
    for _ in 0..12 {
        sessions.push(client.handshake()?);
    }
    let mut latest = sessions.pop().context("twelve sessions")?;
    client.send(&latest.keepalive())?;
    let service = bed.service(client.family())?;
    let mut link = Link { client, service, session: latest };
    let packet = link.packet(b"under a forgotten session");
    let stale: Vec<_> = sessions.iter_mut().map(|session| session.seal(&packet)).collect();
    link.dropped(&stale)
}

fn gateway_sends_under_the_confirmed_session(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut first = client.connect()?;
    client.exchange(&mut first, &service, b"under the first")?;
    let mut second = client.handshake()?;
    service.send(client, b"before the second is confirmed")?;
    let (_, _, inner) = client.data(&first, PATIENCE).context("the second is not confirmed yet")?;
    ensure!(inner.payload == b"before the second is confirmed", "{:?}", inner.payload);
    client.exchange(&mut second, &service, b"under the second")
}

fn first_answer_goes_under_the_session_just_confirmed(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    for round in 0..40_u32 {
        // As a client that was restarted, it has forgotten the session before.
        let mut session = client.handshake()?;
        client.send(&session.seal(&client.packet(&service, &round.to_be_bytes())))?;
        service.expect(&round.to_be_bytes())?;
        service.send(client, b"answer")?;
        let (_, _, inner) = client.data(&session, PATIENCE).with_context(|| format!("round {round}"))?;
        ensure!(inner.payload == b"answer", "{:?}", inner.payload);
    }
    Ok(())
}

fn messages_are_padded_to_16_with_zeros(bed: &Bed, client: &mut Client) -> Result<()> {
    let link = Link::open(bed, client)?;
    for len in 0..=33 {
        let payload = vec![0xaa; len];
        link.service.send(link.client, &payload)?;
        let (datagram, _, inner) = link.client.data(&link.session, PATIENCE)?;
        let opened_len = datagram.bytes.len() - KEEPALIVE_LEN;
        ensure!(inner.payload == payload, "{len} bytes arrived as {:?}", inner.payload);
        ensure!(opened_len.is_multiple_of(16), "a plaintext of {opened_len} bytes");
        ensure!(inner.padding.len() < 16, "{} bytes of padding", inner.padding.len());
        ensure!(inner.padding.iter().all(|byte| *byte == 0), "padding {:?}", inner.padding);
    }
    Ok(())
}

fn padding_ends_at_the_mtu(bed: &Bed, client: &mut Client) -> Result<()> {
    const MTU: usize = 1420;
    let link = Link::open(bed, client)?;
    let headers = if link.service.family() == Family::V4 { 28 } else { 48 };
    for packet_len in [MTU - 20, MTU - 13, MTU - 12, MTU - 1, MTU] {
        let payload = vec![0xaa; packet_len - headers];
        link.service.send(link.client, &payload)?;
        let (datagram, _, inner) = link.client.data(&link.session, PATIENCE)?;
        let opened_len = datagram.bytes.len() - KEEPALIVE_LEN;
        ensure!(inner.payload == payload, "the payload of a packet of {packet_len} bytes changed");
        let due = packet_len.next_multiple_of(16).min(MTU);
        ensure!(opened_len == due, "{packet_len} bytes were padded to {opened_len}, not {due}");
    }
    Ok(())
}

fn unpadded_and_overpadded_packets_are_delivered(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    for padding in [&[][..], &[0], &[0xff; 3], &[0x45; 100]] {
        let payload = format!("with {} bytes behind it", padding.len());
        let mut plaintext = link.packet(payload.as_bytes());
        plaintext.extend(padding);
        let message = link.seal_raw(&plaintext);
        link.client.send(&message)?;
        link.service.expect(payload.as_bytes())?;
    }
    Ok(())
}

/// Packets of both families, changed before they are sealed.
fn changed_inside(bed: &Bed, client: &mut Client, change: fn(&mut Vec<u8>, Family) -> bool) -> Result<()> {
    for family in Family::BOTH {
        let service = bed.service(family)?;
        let session = client.connect()?;
        let mut link = Link { client, service, session };
        let mut plaintext = link.packet(b"changed inside the tunnel!");
        if change(&mut plaintext, family) {
            inner::renew_ipv4_checksum(&mut plaintext);
        }
        let message = link.seal_raw(&plaintext);
        link.dropped(&[message]).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

fn inner_length_beyond_the_payload_is_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    for excess in [1, 16, 1000] {
        let mut link = Link::open(bed, client)?;
        let mut plaintext = link.packet(b"longer than it is");
        let at = if link.service.family() == Family::V4 { 2 } else { 4 };
        let len = u16::from_be_bytes([plaintext[at], plaintext[at + 1]]) + excess;
        plaintext[at..at + 2].copy_from_slice(&len.to_be_bytes());
        if at == 2 {
            inner::renew_ipv4_checksum(&mut plaintext);
        }
        let message = link.seal_raw(&plaintext);
        link.dropped(&[message]).with_context(|| format!("{excess} bytes beyond"))?;
    }
    Ok(())
}

fn inner_length_shorter_than_its_header_is_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    changed_inside(bed, client, |plaintext, family| {
        let is_v4 = family == Family::V4;
        let (at, len) = if is_v4 { (2, 19_u16) } else { (4, u16::MAX) };
        plaintext[at..at + 2].copy_from_slice(&len.to_be_bytes());
        is_v4
    })
}

fn unknown_inner_versions_are_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    for version in [0, 1, 3, 5, 7, 15] {
        let mut link = Link::open(bed, client)?;
        let mut plaintext = link.packet(b"of an unknown version");
        plaintext[0] = version << 4 | plaintext[0] & 0xf;
        let message = link.seal_raw(&plaintext);
        link.dropped(&[message]).with_context(|| format!("version {version}"))?;
    }
    Ok(())
}

fn truncated_inner_headers_are_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut link = Link::open(bed, client)?;
    let plaintext = link.packet(b"");
    let header_len = if link.service.family() == Family::V4 { 20 } else { 40 };
    let messages: Vec<_> = (1..header_len).map(|len| link.seal_raw(&plaintext[..len])).collect();
    link.dropped(&messages)
}

/// A packet whose inner source is `source` is dropped.
fn foreign_source_is_dropped(bed: &Bed, client: &mut Client, source: std::net::IpAddr) -> Result<()> {
    let service = bed.service(if source.is_ipv4() { Family::V4 } else { Family::V6 })?;
    let session = client.connect()?;
    let mut link = Link { client, service, session };
    let port = link.client.inner_address(link.service.family()).port();
    let source = std::net::SocketAddr::new(source, port);
    let message = link.session.seal(&inner::udp(source, link.service.address, 0, b"a foreign source"));
    link.dropped(&[message]).with_context(|| source.to_string())
}

fn inner_source_of_another_peer_is_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    let other = bed.admit(client.family())?;
    // Also where the other peer's is the longer prefix within ours.
    bed.set(client, &format!("allowed-ips {}/32,10.10.0.0/24,fd10:10::/64", client.inner.v4))?;
    let outcome =
        other.inner.both().into_iter().try_for_each(|source| foreign_source_is_dropped(bed, client, source));
    bed.set(client, &format!("allowed-ips {}/32,{}/128", client.inner.v4, client.inner.v6))?;
    outcome
}

fn inner_source_of_nobody_is_dropped(bed: &Bed, client: &mut Client) -> Result<()> {
    for source in ["203.0.113.9", "2001:db8:dead::9", "127.0.0.1", "::1", "198.51.100.2", "0.0.0.0", "::"] {
        foreign_source_is_dropped(bed, client, source.parse()?)?;
    }
    Ok(())
}
