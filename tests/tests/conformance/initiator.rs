//! The gateway as initiator: what it sends, what it takes for a response, and what it does right after (P2, P7, P9).

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use tests::{
    keys::Keys,
    scripted::{
        Bed, Case, Client, IncomingInitiation, Service, Session,
        client::{FIRST_INITIATION, PATIENCE, SILENCE, random_index},
        layout::{self, INITIATION, KEEPALIVE_LEN, TRANSPORT},
        macs, noise,
        timestamp::WHITENING_NS,
    },
};

/// Packets that wait for a session, per peer.
const STAGED_MAX: usize = 128;

pub const CASES: &[Case] = tests::cases! {
    initiation_is_right_in_every_field,
    initiation_is_marked_af41: "it does not set the TOS of handshakes",
    initiation_has_no_mac2_without_a_cookie,
    timestamp_is_whitened,
    timestamp_is_the_present,
    initiator_sends_a_keepalive_at_once,
    staged_packets_take_the_place_of_the_keepalive,
    staged_packets_are_128_and_the_oldest_go,
    second_response_is_ignored: "it may answer with one more keepalive",
    changed_responses_are_ignored,
    response_of_another_key_is_ignored,
    response_with_another_preshared_key_is_ignored,
    response_moves_the_endpoint,
    crossing_handshakes_end_in_a_session,
    peer_without_an_endpoint_gets_nothing: "it keeps packets for a peer it cannot reach",
    removed_peer_gets_nothing,
    key_change_is_followed_by_a_handshake,
};

/// A gateway that has something to send and takes the first step.
fn provoked(bed: &Bed, client: &Client) -> Result<(Service, IncomingInitiation)> {
    let service = bed.service(client.family())?;
    bed.dial(client)?;
    service.send(client, b"first")?;
    let (_, incoming) = client.incoming_initiation(FIRST_INITIATION)?;
    Ok((service, incoming))
}

/// The next data of the session has this payload, and this counter.
fn arrives(client: &Client, session: &Session, counter: u64, payload: &[u8]) -> Result<()> {
    let (_, found, inner) = client.data(session, PATIENCE)?;
    ensure!(inner.payload == payload, "{:?} arrived, not {payload:?}", inner.payload);
    ensure!(found == counter, "under counter {found}, not {counter}");
    Ok(())
}

fn initiation_is_right_in_every_field(bed: &Bed, client: &mut Client) -> Result<()> {
    // `open` checks type, length, mac1, both sealed fields and the static key.
    provoked(bed, client).map(|_| ())
}

fn initiation_is_marked_af41(bed: &Bed, client: &mut Client) -> Result<()> {
    bed.dial(client)?;
    bed.service(client.family())?.send(client, b"first")?;
    let tos = client.expect(INITIATION, FIRST_INITIATION)?.tos;
    ensure!(tos == 0x88, "TOS {tos:#x}");
    Ok(())
}

fn initiation_has_no_mac2_without_a_cookie(bed: &Bed, client: &mut Client) -> Result<()> {
    bed.dial(client)?;
    bed.service(client.family())?.send(client, b"first")?;
    let message = client.expect(INITIATION, FIRST_INITIATION)?.bytes;
    ensure!(layout::mac2(&message) == Some([0; 16]), "{:?}", layout::mac2(&message));
    Ok(())
}

fn timestamp_is_whitened(bed: &Bed, client: &mut Client) -> Result<()> {
    let nanoseconds = provoked(bed, client)?.1.timestamp.nanoseconds();
    ensure!(nanoseconds.is_multiple_of(WHITENING_NS), "{nanoseconds} ns");
    ensure!(nanoseconds < 1_000_000_000, "{nanoseconds} ns");
    Ok(())
}

fn timestamp_is_the_present(bed: &Bed, client: &mut Client) -> Result<()> {
    let asked_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let timestamp = provoked(bed, client)?.1.timestamp;
    let seconds = timestamp.unix_seconds().context("before 1970")?;
    let present = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    // Whitening makes it a little earlier than it is.
    ensure!(
        (asked_at - 1..=present).contains(&seconds),
        "{seconds} s since 1970, where {present} have passed"
    );
    Ok(())
}

fn initiator_sends_a_keepalive_at_once(bed: &Bed, client: &mut Client) -> Result<()> {
    bed.dial(client)?;
    // Nothing but this makes it want a session, so nothing is staged.
    bed.set(client, "persistent-keepalive 60")?;
    let (_, incoming) = client.incoming_initiation(FIRST_INITIATION)?;
    let session = client.respond(incoming)?;
    let datagram = client.next(PATIENCE)?;
    let (counter, plaintext) = session.open(&datagram.bytes)?;
    ensure!(counter == 0 && plaintext.is_empty(), "{} bytes under counter {counter}", plaintext.len());
    ensure!(datagram.bytes.len() == KEEPALIVE_LEN, "{} bytes", datagram.bytes.len());
    client.silence(SILENCE)
}

fn staged_packets_take_the_place_of_the_keepalive(bed: &Bed, client: &mut Client) -> Result<()> {
    let (service, incoming) = provoked(bed, client)?;
    for number in 1..10 {
        service.send(client, &[number])?;
    }
    // The gateway has read them by then.
    thread::sleep(SILENCE * 10);
    let session = client.respond(incoming)?;
    arrives(client, &session, 0, b"first")?;
    for number in 1..10 {
        arrives(client, &session, u64::from(number), &[number])?;
    }
    client.silence(SILENCE)
}

fn staged_packets_are_128_and_the_oldest_go(bed: &Bed, client: &mut Client) -> Result<()> {
    const SENT: usize = STAGED_MAX + 40;
    let (service, incoming) = provoked(bed, client)?;
    for number in 0..SENT {
        service.send(client, &(number as u16).to_be_bytes())?;
        if number % 16 == 15 {
            thread::sleep(Duration::from_millis(3));
        }
    }
    // The gateway has read them by then.
    thread::sleep(SILENCE * 10);
    let session = client.respond(incoming)?;
    for number in SENT - STAGED_MAX..SENT {
        let (_, _, inner) = client.data(&session, PATIENCE)?;
        let expected = (number as u16).to_be_bytes();
        ensure!(inner.payload == expected, "{:?} arrived, where packet {number} is due", inner.payload);
    }
    client.silence(SILENCE)
}

fn second_response_is_ignored(bed: &Bed, client: &mut Client) -> Result<()> {
    let (service, incoming) = provoked(bed, client)?;
    let (response, session) = incoming.respond(&client.secrets, random_index()?, None)?;
    client.send(&response)?;
    client.send(&response)?;
    arrives(client, &session, 0, b"first")?;
    client.send(&response)?;
    client.silence(SILENCE)?;
    service.send(client, b"second")?;
    arrives(client, &session, 1, b"second")
}

fn changed_responses_are_ignored(bed: &Bed, client: &mut Client) -> Result<()> {
    let (_, incoming) = provoked(bed, client)?;
    let (response, session) = incoming.respond(&client.secrets, random_index()?, None)?;
    let receiver = client.secrets.remote;
    let changes: [fn(&mut Vec<u8>); 9] = [
        |message| message[1] = 1,
        |message| message[8] ^= 1,
        |message| message[12] ^= 1,
        |message| message[12..44].fill(0),
        |message| message[44] ^= 1,
        |message| message[44..60].fill(0),
        |message| message.truncate(91),
        |message| message.push(0),
        |message| message.resize(91 + 32, 0),
    ];
    for change in changes {
        let mut wrong = response.clone();
        change(&mut wrong);
        client.send(&wrong)?;
        macs::renew(&mut wrong, &receiver, None);
        client.send(&wrong)?;
    }
    let mut wrong_mac1 = response.clone();
    wrong_mac1[60] ^= 1;
    client.send(&wrong_mac1)?;
    client.silence(SILENCE)?;
    client.send(&response)?;
    arrives(client, &session, 0, b"first")
}

fn response_of_another_key_is_ignored(bed: &Bed, client: &mut Client) -> Result<()> {
    bed.dial(client)?;
    bed.service(client.family())?.send(client, b"first")?;
    let message = client.expect(INITIATION, FIRST_INITIATION)?.bytes;
    // Another peer with keys of its own names the index of the handshake.
    let mut other = bed.admit(client.family())?;
    let initiation = other.initiation()?.message;
    let mut forged = vec![0x42; layout::RESPONSE_LEN];
    forged[..4].copy_from_slice(&layout::RESPONSE.to_le_bytes());
    forged[8..12].copy_from_slice(&message[4..8]);
    forged[12..44].copy_from_slice(&initiation[layout::EPHEMERAL]);
    macs::renew(&mut forged, &client.secrets.remote, None);
    other.send(&forged)?;
    other.silence(SILENCE)?;
    let session = client.respond(IncomingInitiation::open(&client.secrets, &message)?)?;
    arrives(client, &session, 0, b"first")
}

fn response_with_another_preshared_key_is_ignored(bed: &Bed, client: &mut Client) -> Result<()> {
    bed.set_preshared(client, &[1; 32])?;
    bed.dial(client)?;
    bed.service(client.family())?.send(client, b"first")?;
    let message = client.expect(INITIATION, FIRST_INITIATION)?.bytes;
    client.secrets.preshared = [2; 32];
    client.respond(IncomingInitiation::open(&client.secrets, &message)?)?;
    client.silence(SILENCE)?;
    client.secrets.preshared = [1; 32];
    let session = client.respond(IncomingInitiation::open(&client.secrets, &message)?)?;
    arrives(client, &session, 0, b"first")
}

fn response_moves_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    let (_, incoming) = provoked(bed, client)?;
    client.move_to_new_port()?;
    let session = client.respond(incoming)?;
    arrives(client, &session, 0, b"first")?;
    let (here, known) = (client.wire.local()?.to_string(), bed.endpoint_of(client)?);
    ensure!(here == known, "the endpoint is {known}, not {here}");
    Ok(())
}

fn crossing_handshakes_end_in_a_session(bed: &Bed, client: &mut Client) -> Result<()> {
    let (service, incoming) = provoked(bed, client)?;
    let mut ours = client.handshake()?;
    // The kernel has forgotten its initiation by then; either session may be the one that stays.
    let theirs = client.respond(incoming)?;
    client.send(&ours.seal(&client.packet(&service, b"under ours")))?;
    service.expect(b"under ours")?;
    let data = client.expect(TRANSPORT, PATIENCE)?.bytes;
    let opened = ours.open(&data).or_else(|_| theirs.open(&data))?;
    client.send(&ours.seal(&client.packet(&service, b"still under ours")))?;
    service.expect(b"still under ours")?;
    ensure!(opened.0 == 0, "the first message has counter {}", opened.0);
    Ok(())
}

fn peer_without_an_endpoint_gets_nothing(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    service.send(client, b"to nowhere")?;
    client.silence(SILENCE)?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"here now")
}

fn removed_peer_gets_nothing(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"known")?;
    bed.set(client, "remove")?;
    client.send(&session.seal(&client.packet(&service, b"removed")))?;
    service.send(client, b"to who is removed")?;
    client.initiate()?;
    service.silence()?;
    client.silence(SILENCE)
}

/// The last of the table: all other clients know the key that is replaced.
fn key_change_is_followed_by_a_handshake(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"under the old key")?;
    let keys = Keys::generate()?;
    let private = noise::key(keys.private.reveal())?;
    let answer = bed.uapi(&format!("set=1\nprivate_key={}\n\n", tests::scripted::bed::hex(&private)))?;
    let changed_at = Instant::now();
    ensure!(answer.trim() == "errno=0", "{answer}");
    client.secrets.remote = noise::key(&keys.public)?;
    // At most one initiation within five seconds of the last handshake message.
    let initiation = loop {
        service.send(client, b"under the new key")?;
        match client.wire.receive(Duration::from_millis(200))? {
            Some(datagram) if layout::kind(&datagram.bytes) == INITIATION => break datagram.bytes,
            Some(datagram) => ensure!(
                session.open(&datagram.bytes).is_err() || datagram.at < changed_at + SILENCE,
                "type {TRANSPORT} under the old session, {:?} after the change",
                datagram.at - changed_at
            ),
            None => ensure!(changed_at.elapsed() < Duration::from_secs(15), "no handshake under the new key"),
        }
    };
    let session = client.respond(IncomingInitiation::open(&client.secrets, &initiation)?)?;
    let (_, _, inner) = client.data(&session, PATIENCE)?;
    ensure!(inner.payload == b"under the new key", "{:?}", inner.payload);
    Ok(())
}
