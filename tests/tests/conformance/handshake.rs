//! The gateway as responder: which initiations it answers, and how (P1, P2).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::scripted::{
    Bed, Case, Client, Datagram, Initiation, Secrets,
    client::{PATIENCE, SILENCE, random_index},
    layout::{
        self, COOKIE_REPLY_LEN, ENCRYPTED_STATIC, ENCRYPTED_TIMESTAMP, INITIATION_LEN, RESPONSE,
        RESPONSE_LEN, TRANSPORT,
    },
    macs, noise,
};

/// Outer TOS of handshake messages: AF41, ECN 0.
const HANDSHAKE_TOS: u8 = 0x88;

pub const CASES: &[Case] = tests::cases! {
    right_initiation_gets_one_right_response,
    response_has_no_mac2_without_a_cookie,
    response_is_marked_af41: "it does not set the TOS of handshakes",
    initiation_too_short_gets_no_answer,
    initiation_too_long_gets_no_answer,
    initiation_with_wrong_mac1_gets_no_answer,
    initiation_for_another_key_gets_no_answer,
    mac2_is_ignored_without_load,
    null_ephemeral_gets_no_answer,
    null_static_gets_no_answer,
    null_static_of_a_configured_peer_gets_no_answer,
    nulled_encrypted_static_gets_no_answer,
    nulled_encrypted_timestamp_gets_no_answer,
    unknown_peer_gets_no_answer,
    reserved_bytes_get_no_answer,
    unknown_types_get_no_answer,
    empty_and_one_byte_datagrams_get_no_answer,
    responses_and_cookies_to_nothing_get_no_answer,
    replayed_initiation_gets_no_answer,
    older_timestamp_gets_no_answer,
    timestamp_is_compared_to_the_nanosecond,
    timestamp_need_not_be_near_the_present,
    initiations_within_20_ms_get_one_answer,
    session_indices_are_random_and_unique,
    wrong_preshared_key_gives_no_session,
    preshared_key_change_takes_effect,
    null_preshared_key_is_none,
};

/// None of `messages` is answered, and a right initiation still is.
fn unanswered(client: &mut Client, messages: &[Vec<u8>]) -> Result<()> {
    for message in messages {
        client.send(message)?;
    }
    client.silence(SILENCE).with_context(|| format!("{} wrong messages", messages.len()))?;
    client.connect().context("a right initiation afterwards")?;
    Ok(())
}

/// A right initiation, changed, with its macs made right again.
fn changed(client: &mut Client, change: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>> {
    let mut message = client.initiation()?.message;
    change(&mut message);
    macs::renew(&mut message, &client.secrets.remote, None);
    Ok(message)
}

fn right_initiation_gets_one_right_response(_: &Bed, client: &mut Client) -> Result<()> {
    let initiation = client.initiate()?;
    let response = client.next(PATIENCE)?;
    initiation.complete(&client.secrets, &response.bytes)?;
    client.silence(SILENCE)
}

fn response_has_no_mac2_without_a_cookie(_: &Bed, client: &mut Client) -> Result<()> {
    client.initiate()?;
    let response = client.expect(RESPONSE, PATIENCE)?;
    ensure!(layout::mac2(&response.bytes) == Some([0; 16]), "mac2 of {:?}", layout::mac2(&response.bytes));
    Ok(())
}

fn response_is_marked_af41(_: &Bed, client: &mut Client) -> Result<()> {
    client.initiate()?;
    let tos = client.expect(RESPONSE, PATIENCE)?.tos;
    ensure!(tos == HANDSHAKE_TOS, "TOS {tos:#x}");
    Ok(())
}

fn initiation_too_short_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let cut = changed(client, |message| message.truncate(INITIATION_LEN - 1))?;
    let mut headless = client.initiation()?.message;
    headless.pop();
    unanswered(client, &[cut, headless, vec![1, 0, 0, 0]])
}

fn initiation_too_long_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let mut trailing = client.initiation()?.message;
    trailing.push(0);
    let mut covered = client.initiation()?.message;
    covered.truncate(INITIATION_LEN - 32);
    covered.push(0);
    macs::append(&mut covered, &client.secrets.remote, None);
    let mut long = client.initiation()?.message;
    long.resize(1400, 0);
    unanswered(client, &[trailing, covered, long])
}

fn initiation_with_wrong_mac1_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let mut messages = Vec::new();
    for byte in INITIATION_LEN - 32..INITIATION_LEN - 16 {
        let mut message = client.initiation()?.message;
        message[byte] ^= 1;
        messages.push(message);
    }
    unanswered(client, &messages)
}

fn initiation_for_another_key_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let other = Secrets::generate([0; 32])?.public;
    let mut message = client.initiation()?.message;
    macs::renew(&mut message, &other, None);
    unanswered(client, &[message])
}

fn mac2_is_ignored_without_load(_: &Bed, client: &mut Client) -> Result<()> {
    let mut initiation = client.initiation()?;
    macs::renew(&mut initiation.message, &client.secrets.remote, Some(&[7; 16]));
    client.send(&initiation.message)?;
    client.response_to(initiation).map(|_| ())
}

fn null_ephemeral_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    // Later than the last, so that nothing but the key is wrong with it.
    let timestamp = client.last_timestamp().later_by(Duration::from_secs(1_900_000_000));
    let null = Initiation::with_null_ephemeral(&client.secrets, timestamp, random_index()?)?;
    unanswered(client, &[null.message])
}

fn null_static_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let null = Secrets::null(client.secrets.remote);
    let initiation = Initiation::new(&null, tests::scripted::Timestamp::now(), random_index()?)?;
    unanswered(client, &[initiation.message])
}

fn null_static_of_a_configured_peer_gets_no_answer(bed: &Bed, client: &mut Client) -> Result<()> {
    let null = noise::text(&[0; 32]);
    let interface = &bed.gateway.interface;
    bed.gateway.namespace.run(&format!("wg set {interface} peer {null} allowed-ips 10.10.0.250/32"))?;
    let outcome = null_static_gets_no_answer(bed, client);
    bed.gateway.namespace.run(&format!("wg set {interface} peer {null} remove"))?;
    outcome
}

fn nulled_encrypted_static_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let message = changed(client, |message| message[ENCRYPTED_STATIC].fill(0))?;
    unanswered(client, &[message])
}

fn nulled_encrypted_timestamp_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let message = changed(client, |message| message[ENCRYPTED_TIMESTAMP].fill(0))?;
    unanswered(client, &[message])
}

fn unknown_peer_gets_no_answer(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut stranger = bed.stranger(client.family())?;
    stranger.initiate()?;
    stranger.silence(SILENCE)?;
    client.connect().map(|_| ())
}

fn reserved_bytes_get_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let mut messages = Vec::new();
    for byte in 1..4 {
        messages.push(changed(client, |message| message[byte] = 1)?);
    }
    unanswered(client, &messages)
}

fn unknown_types_get_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let mut messages = Vec::new();
    for kind in [0, 5, 0xff] {
        messages.push(changed(client, |message| message[0] = kind)?);
    }
    unanswered(client, &messages)
}

fn empty_and_one_byte_datagrams_get_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let mut messages = vec![Vec::new()];
    messages.extend((0..=5).map(|byte| vec![byte]));
    unanswered(client, &messages)
}

fn responses_and_cookies_to_nothing_get_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let mut response = vec![0x5a; RESPONSE_LEN];
    response[..4].copy_from_slice(&RESPONSE.to_le_bytes());
    macs::renew(&mut response, &client.secrets.remote, None);
    let mut cookie = vec![0x5a; COOKIE_REPLY_LEN];
    cookie[..4].copy_from_slice(&layout::COOKIE_REPLY.to_le_bytes());
    let mut data = vec![0x5a; 96];
    data[..4].copy_from_slice(&TRANSPORT.to_le_bytes());
    unanswered(client, &[response, cookie, data])
}

fn replayed_initiation_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    let initiation = client.initiation()?;
    let message = initiation.message.clone();
    client.send(&message)?;
    client.response_to(initiation)?;
    unanswered(client, std::slice::from_ref(&message))?;
    // Nor after a later one, nor from another address.
    client.move_to_new_port()?;
    unanswered(client, &[message])
}

fn older_timestamp_gets_no_answer(_: &Bed, client: &mut Client) -> Result<()> {
    client.connect()?;
    std::thread::sleep(Duration::from_millis(30));
    let older = client.last_timestamp().earlier_by(Duration::from_nanos(1));
    let older = client.initiation_at(older)?.message;
    client.send(&older)?;
    client.silence(SILENCE)?;
    let equal = client.initiation_at(client.last_timestamp())?.message;
    unanswered(client, &[equal])
}

fn timestamp_is_compared_to_the_nanosecond(_: &Bed, client: &mut Client) -> Result<()> {
    client.connect()?;
    std::thread::sleep(Duration::from_millis(30));
    let initiation = client.initiation_at(client.last_timestamp().later_by(Duration::from_nanos(1)))?;
    client.send(&initiation.message)?;
    client.response_to(initiation).map(|_| ())
}

fn timestamp_need_not_be_near_the_present(_: &Bed, client: &mut Client) -> Result<()> {
    for step in [Duration::from_secs(1), Duration::from_hours(800_000)] {
        let initiation = client.initiation_at(client.last_timestamp().later_by(step))?;
        client.send(&initiation.message)?;
        client.response_to(initiation)?;
        std::thread::sleep(Duration::from_millis(30));
    }
    Ok(())
}

fn initiations_within_20_ms_get_one_answer(_: &Bed, client: &mut Client) -> Result<()> {
    const SENT: usize = 12;
    // Again, where a slow machine took so long that more of them could be answered, or had one from before to read.
    for _ in 0..20 {
        let mut messages = Vec::new();
        for _ in 0..SENT {
            let later = client.last_timestamp().later_by(Duration::from_secs(1));
            messages.push(client.initiation_at(later)?.message);
        }
        let start = Instant::now();
        messages.iter().try_for_each(|message| client.send(message))?;
        let mut answers = Vec::new();
        let mut patience = Duration::from_secs(1);
        while let Some(Datagram { bytes, at, .. }) = client.wire.receive(patience)? {
            // Not to those of the time before.
            if messages.iter().any(|message| bytes.get(8..12) == Some(&message[4..8])) {
                answers.push(at);
                patience = SILENCE;
            }
        }
        let spread =
            answers.iter().max().map_or(Duration::ZERO, |last| last.saturating_duration_since(start));
        let answers_max = 1 + usize::try_from(spread.as_millis() / 20)?;
        ensure!(
            answers.len() <= answers_max,
            "{} answers in {spread:?} to {SENT} initiations",
            answers.len()
        );
        if !answers.is_empty() && answers_max <= SENT / 3 {
            return Ok(());
        }
    }
    anyhow::bail!("{SENT} initiations were never answered within 80 ms")
}

fn session_indices_are_random_and_unique(_: &Bed, client: &mut Client) -> Result<()> {
    const COUNT: usize = 40;
    let mut indices = Vec::new();
    for _ in 0..COUNT {
        indices.push(client.handshake()?.remote_index);
    }
    let distinct: BTreeSet<_> = indices.iter().collect();
    ensure!(distinct.len() == COUNT, "an index was used twice: {indices:x?}");
    // 40 random numbers fall into fewer than 16 of 256 classes once in 10^15 times.
    for shift in [0, 8, 16, 24] {
        let bytes: BTreeSet<_> = indices.iter().map(|index| (index >> shift) as u8).collect();
        ensure!(bytes.len() >= 16, "byte {} of the indices is no random one: {indices:x?}", shift / 8);
    }
    let near = indices.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 1 << 16).count();
    ensure!(near <= 2, "{near} indices follow the one before: {indices:x?}");
    Ok(())
}

fn wrong_preshared_key_gives_no_session(bed: &Bed, client: &mut Client) -> Result<()> {
    bed.set_preshared(client, &[1; 32])?;
    client.secrets.preshared = [2; 32];
    let initiation = client.initiate()?;
    let response = client.expect(RESPONSE, PATIENCE)?;
    let outcome = initiation.complete(&client.secrets, &response.bytes);
    ensure!(outcome.is_err(), "the response is authentic under another preshared key");
    client.secrets.preshared = [1; 32];
    client.connect().map(|_| ())
}

fn preshared_key_change_takes_effect(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    for preshared in [[3; 32], [4; 32]] {
        bed.set_preshared(client, &preshared)?;
        client.secrets.preshared = preshared;
        let mut session = client.connect()?;
        client.exchange(&mut session, &service, b"under a preshared key")?;
    }
    Ok(())
}

fn null_preshared_key_is_none(bed: &Bed, client: &mut Client) -> Result<()> {
    bed.set_preshared(client, &[3; 32])?;
    bed.set_preshared(client, &[0; 32])?;
    client.connect().map(|_| ())
}
