//! What waits for seconds: retransmits, keepalives, new handshakes, and cookies that only the next message may use
//! (P5, P6). All scenarios run at once, each with a client of its own.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::scripted::{
    Bed, Case, Client, Datagram, IncomingInitiation,
    client::{FIRST_INITIATION, PATIENCE, SILENCE},
    layout::{self, INITIATION, RESPONSE, TRANSPORT},
    macs::{self, Mac},
};

const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const NEW_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// What a timer may be early: the clocks of two processes, read at two places.
const EARLY: Duration = Duration::from_millis(30);
/// What it may be late: a third of a second of jitter, and a busy machine.
const LATE: Duration = Duration::from_secs(4);
/// How long beyond its time we wait for what must not come.
const QUIET: Duration = Duration::from_millis(900);

const COOKIE: Mac = [0x5c; 16];

pub const CASES: &[Case] = tests::cases! {
    initiation_is_sent_again_every_five_seconds,
    staged_packets_survive_a_lost_initiation,
    initiations_are_five_seconds_apart_whatever_is_sent,
    response_to_an_old_initiation_is_ignored,
    response_ends_the_retries,
    received_data_is_answered_by_a_keepalive_after_ten_seconds,
    keepalives_and_handshakes_are_not_answered_by_keepalives,
    sent_data_keeps_the_keepalive_away,
    unanswered_data_brings_a_handshake_after_fifteen_seconds,
    answered_data_brings_no_handshake,
    persistent_keepalives_come_every_interval,
    data_puts_the_persistent_keepalive_off,
    cookie_is_used_by_the_next_initiation_only_after_the_timer,
    cookie_is_used_by_the_next_response,
    wrong_cookie_replies_are_ignored,
    second_cookie_for_a_message_is_ignored: "it takes the last",
};

fn within(what: &str, elapsed: Duration, due: Duration) -> Result<()> {
    ensure!(elapsed + EARLY >= due && elapsed < due + LATE, "{what} after {elapsed:?}, due after {due:?}");
    Ok(())
}

/// Makes the gateway initiate; the initiation.
fn provoked(bed: &Bed, client: &Client) -> Result<Datagram> {
    bed.dial(client)?;
    bed.service(client.family())?.send(client, b"staged")?;
    client.expect(INITIATION, FIRST_INITIATION)
}

fn initiation_is_sent_again_every_five_seconds(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut last = provoked(bed, client)?;
    for _ in 0..2 {
        let next = client.next(REKEY_TIMEOUT + LATE)?;
        within("an initiation", next.at - last.at, REKEY_TIMEOUT)?;
        let [old, new] =
            [&last, &next].map(|datagram| IncomingInitiation::open(&client.secrets, &datagram.bytes));
        let (old, new) = (old?, new?);
        ensure!(new.timestamp > old.timestamp, "{:?} follows {:?}", new.timestamp, old.timestamp);
        ensure!(new.sender_index != old.sender_index, "index {:#x} again", new.sender_index);
        let ephemeral = |datagram: &Datagram| datagram.bytes[layout::EPHEMERAL].to_vec();
        ensure!(ephemeral(&last) != ephemeral(&next), "the ephemeral key again");
        last = next;
    }
    Ok(())
}

fn staged_packets_survive_a_lost_initiation(bed: &Bed, client: &mut Client) -> Result<()> {
    provoked(bed, client)?;
    let (_, incoming) = client.incoming_initiation(REKEY_TIMEOUT + LATE)?;
    let session = client.respond(incoming)?;
    let (_, counter, inner) = client.data(&session, PATIENCE)?;
    ensure!(counter == 0 && inner.payload == b"staged", "{:?} under {counter}", inner.payload);
    Ok(())
}

fn initiations_are_five_seconds_apart_whatever_is_sent(bed: &Bed, client: &mut Client) -> Result<()> {
    let first = provoked(bed, client)?;
    let service = bed.service(client.family())?;
    let next = loop {
        service.send(client, b"more")?;
        if let Some(datagram) = client.wire.receive(Duration::from_millis(200))? {
            break datagram;
        }
        ensure!(first.at.elapsed() < REKEY_TIMEOUT + LATE, "no second initiation");
    };
    within("the second initiation", next.at - first.at, REKEY_TIMEOUT)
}

fn response_to_an_old_initiation_is_ignored(bed: &Bed, client: &mut Client) -> Result<()> {
    let first = provoked(bed, client)?;
    let (_, latest) = client.incoming_initiation(REKEY_TIMEOUT + LATE)?;
    client.respond(IncomingInitiation::open(&client.secrets, &first.bytes)?)?;
    client.silence(SILENCE)?;
    let session = client.respond(latest)?;
    client.data(&session, PATIENCE).map(|_| ())
}

fn response_ends_the_retries(bed: &Bed, client: &mut Client) -> Result<()> {
    let first = provoked(bed, client)?;
    let mut session = client.respond(IncomingInitiation::open(&client.secrets, &first.bytes)?)?;
    client.data(&session, PATIENCE)?;
    client.send(&session.keepalive())?;
    client.silence(REKEY_TIMEOUT + QUIET)
}

fn received_data_is_answered_by_a_keepalive_after_ten_seconds(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    let sent_at = Instant::now();
    client.send(&session.seal(&client.packet(&service, b"unanswered")))?;
    let keepalive = client.next(KEEPALIVE_TIMEOUT + LATE)?;
    let (_, plaintext) = session.open(&keepalive.bytes)?;
    ensure!(plaintext.is_empty(), "{} bytes", plaintext.len());
    within("the keepalive", keepalive.at - sent_at, KEEPALIVE_TIMEOUT)
}

fn keepalives_and_handshakes_are_not_answered_by_keepalives(_: &Bed, client: &mut Client) -> Result<()> {
    let mut session = client.connect()?;
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(200));
        client.send(&session.keepalive())?;
    }
    client.silence(KEEPALIVE_TIMEOUT + QUIET)
}

fn sent_data_keeps_the_keepalive_away(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"answered")?;
    // What is answered needs no keepalive of the gateway; its own data needs ours.
    client.send(&session.keepalive())?;
    client.silence(KEEPALIVE_TIMEOUT + QUIET)
}

fn unanswered_data_brings_a_handshake_after_fifteen_seconds(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let session = client.connect()?;
    // The confirmation has to have been seen before the gateway sends.
    thread::sleep(SILENCE);
    service.send(client, b"unanswered")?;
    let sent_at = client.data(&session, PATIENCE)?.0.at;
    let initiation = client.next(NEW_HANDSHAKE_TIMEOUT + LATE)?;
    IncomingInitiation::open(&client.secrets, &initiation.bytes)?;
    within("the initiation", initiation.at - sent_at, NEW_HANDSHAKE_TIMEOUT)
}

fn answered_data_brings_no_handshake(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    thread::sleep(SILENCE);
    service.send(client, b"answered by a keepalive")?;
    client.data(&session, PATIENCE)?;
    // The reference arms its timer after it has sent: an answer may be faster.
    thread::sleep(SILENCE);
    client.send(&session.keepalive())?;
    client.silence(NEW_HANDSHAKE_TIMEOUT + QUIET)
}

fn persistent_keepalives_come_every_interval(bed: &Bed, client: &mut Client) -> Result<()> {
    let session = client.connect()?;
    thread::sleep(SILENCE);
    bed.set(client, "persistent-keepalive 1")?;
    let mut last = client.expect(TRANSPORT, PATIENCE).context("one is due at once")?;
    for _ in 0..4 {
        let next = client.expect(TRANSPORT, PATIENCE)?;
        let (_, plaintext) = session.open(&next.bytes)?;
        ensure!(plaintext.is_empty(), "{} bytes", plaintext.len());
        within("a keepalive", next.at - last.at, Duration::from_secs(1))?;
        last = next;
    }
    bed.set(client, "persistent-keepalive 0")?;
    // One may have been on its way.
    client.wire.receive(SILENCE)?;
    client.silence(Duration::from_secs(1) + QUIET)
}

fn data_puts_the_persistent_keepalive_off(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut session = client.connect()?;
    thread::sleep(SILENCE);
    bed.set(client, "persistent-keepalive 3")?;
    client.expect(TRANSPORT, PATIENCE).context("one is due at once")?;
    // Whatever is received counts, too.
    let mut sent_at = Instant::now();
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(500));
        sent_at = Instant::now();
        client.send(&session.keepalive())?;
    }
    let keepalive = client.next(PATIENCE)?;
    within("the keepalive", keepalive.at - sent_at, Duration::from_secs(3))
}

fn cookie_is_used_by_the_next_initiation_only_after_the_timer(bed: &Bed, client: &mut Client) -> Result<()> {
    let first = provoked(bed, client)?;
    client.send(&macs::cookie_reply(&client.secrets.public, &first.bytes, &COOKIE)?)?;
    let next = client.next(REKEY_TIMEOUT + LATE)?;
    within("the next initiation", next.at - first.at, REKEY_TIMEOUT)?;
    let incoming = IncomingInitiation::open(&client.secrets, &next.bytes)?;
    ensure!(macs::mac2_is_right(&next.bytes, &COOKIE), "mac2 is {:x?}", layout::mac2(&next.bytes));
    let session = client.respond(incoming)?;
    client.data(&session, PATIENCE).map(|_| ())
}

fn cookie_is_used_by_the_next_response(_: &Bed, client: &mut Client) -> Result<()> {
    client.initiate()?;
    let first = client.expect(RESPONSE, PATIENCE)?.bytes;
    client.send(&macs::cookie_reply(&client.secrets.public, &first, &COOKIE)?)?;
    client.silence(SILENCE)?;
    let initiation = client.initiate()?;
    let second = client.expect(RESPONSE, PATIENCE)?.bytes;
    ensure!(macs::mac2_is_right(&second, &COOKIE), "mac2 is {:x?}", layout::mac2(&second));
    initiation.complete(&client.secrets, &second).map(|_| ())
}

fn wrong_cookie_replies_are_ignored(bed: &Bed, client: &mut Client) -> Result<()> {
    let first = provoked(bed, client)?;
    let right = macs::cookie_reply(&client.secrets.public, &first.bytes, &COOKIE)?;
    let mut other_mac1 = first.bytes.clone();
    other_mac1[100] ^= 1;
    macs::renew(&mut other_mac1, &client.secrets.public, None);
    let mut replies = vec![
        macs::cookie_reply(&client.secrets.public, &other_mac1, &COOKIE)?,
        macs::cookie_reply(&client.secrets.remote, &first.bytes, &COOKIE)?,
        right[..63].to_vec(),
        [&right[..], &[0]].concat(),
    ];
    for byte in [1, 4, 8, 40, 63] {
        let mut changed = right.clone();
        changed[byte] ^= 1;
        replies.push(changed);
    }
    replies.iter().try_for_each(|reply| client.send(reply))?;
    let next = client.next(REKEY_TIMEOUT + LATE)?;
    ensure!(layout::mac2(&next.bytes) == Some([0; 16]), "mac2 is {:x?}", layout::mac2(&next.bytes));
    within("the next initiation", next.at - first.at, REKEY_TIMEOUT)
}

fn second_cookie_for_a_message_is_ignored(_: &Bed, client: &mut Client) -> Result<()> {
    client.initiate()?;
    let response = client.expect(RESPONSE, PATIENCE)?.bytes;
    let reply = |cookie| macs::cookie_reply(&client.secrets.public, &response, cookie);
    client.send(&reply(&COOKIE)?)?;
    client.send(&reply(&[0x11; 16])?)?;
    client.silence(SILENCE)?;
    client.initiate()?;
    let next = client.expect(RESPONSE, PATIENCE)?.bytes;
    ensure!(macs::mac2_is_right(&next, &COOKIE), "mac2 is {:x?}", layout::mac2(&next));
    Ok(())
}
