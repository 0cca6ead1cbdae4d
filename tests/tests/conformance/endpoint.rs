//! Where the gateway believes a client to be, what it counts for it, and what outer headers say (P8, P9, P10).

use anyhow::{Context, Result, ensure};
use tests::{
    scripted::{
        Bed, Case, Client, Session,
        client::PATIENCE,
        layout::{RESPONSE, TRANSPORT},
        macs,
    },
    site::{Addresses, Family, GATEWAY_HOST, LISTEN_PORT, UPLINK, outer},
    wait_until,
};

pub const CASES: &[Case] = tests::cases! {
    initiation_moves_the_endpoint,
    data_moves_the_endpoint,
    keepalive_moves_the_endpoint,
    packet_with_a_foreign_source_moves_the_endpoint,
    packet_with_unknown_contents_moves_the_endpoint,
    endpoint_changes_its_family,
    old_session_moves_the_endpoint,
    forged_replayed_and_unknown_packets_do_not_move_the_endpoint,
    wrong_initiations_do_not_move_the_endpoint,
    cookie_reply_does_not_move_the_endpoint,
    answers_follow_the_endpoint,
    first_answer_goes_where_the_packet_came_from,
    answers_leave_from_the_address_dialled,
    endpoints_of_both_families_alternate_without_loss,
    transfer_counts_every_byte_of_handshakes_and_data,
    transfer_does_not_count_what_is_not_authentic,
    congestion_mark_reaches_the_inner_header: "it does nothing about ECN",
    congestion_mark_drops_what_is_not_capable: "it does nothing about ECN",
    capable_outer_header_changes_nothing_inside,
    inner_ecn_is_copied_out: "it does nothing about ECN",
    inner_dscp_stays_inside,
};

/// Waits until the gateway has the client where it is.
fn found(bed: &Bed, client: &Client) -> Result<()> {
    let here = client.wire.local()?.to_string();
    wait_until(&format!("the endpoint is {here}"), PATIENCE, || Ok(bed.endpoint_of(client)? == here))
        .with_context(|| format!("it is {}", bed.endpoint_of(client).unwrap_or_default()))
}

/// Moves the client, does `work`, and checks that it was not followed. The socket from before is used again.
fn not_followed(
    bed: &Bed,
    client: &mut Client,
    session: &mut Session,
    work: impl FnOnce(&mut Client) -> Result<()>,
) -> Result<()> {
    let before = bed.endpoint_of(client)?;
    let home = client.move_to_new_port()?;
    work(client)?;
    let away = std::mem::replace(&mut client.wire, home);
    // What is authentic, from another client: all that came before has been dealt with.
    let mut witness = bed.admit(client.family())?;
    let service = bed.service(client.family())?;
    let mut witnessed = witness.connect()?;
    witness.exchange(&mut witnessed, &service, b"witness")?;
    std::thread::sleep(tests::scripted::client::SILENCE);
    let after = bed.endpoint_of(client)?;
    ensure!(before == after, "the endpoint moved from {before} to {after}, perhaps {:?}", away.local()?);
    client.exchange(session, &service, b"at home")
}

fn initiation_moves_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    client.connect()?;
    client.move_to_new_port()?;
    client.handshake()?;
    found(bed, client)
}

fn data_moves_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    for _ in 0..3 {
        client.move_to_new_port()?;
        client.exchange(&mut session, &service, b"from a new port")?;
        found(bed, client)?;
    }
    Ok(())
}

fn keepalive_moves_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut session = client.connect()?;
    client.move_to_new_port()?;
    client.send(&session.keepalive())?;
    found(bed, client)
}

fn packet_with_a_foreign_source_moves_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    let other = bed.admit(client.family())?;
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.move_to_new_port()?;
    client.send(&session.seal(&other.packet(&service, b"a foreign source")))?;
    found(bed, client)?;
    service.silence()
}

fn packet_with_unknown_contents_moves_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut session = client.connect()?;
    client.move_to_new_port()?;
    client.send(&session.seal(&[0xff; 48]))?;
    found(bed, client)
}

fn endpoint_changes_its_family(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    for family in [Family::V6, Family::V4, Family::V6] {
        let template = bed.stranger(family)?;
        (client.wire, client.gateway, client.namespace) =
            (template.wire, template.gateway, template.namespace);
        client.exchange(&mut session, &service, b"over another family")?;
        found(bed, client)?;
    }
    Ok(())
}

fn old_session_moves_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut old = client.connect()?;
    client.connect()?;
    client.move_to_new_port()?;
    client.send(&old.keepalive())?;
    found(bed, client)
}

fn forged_replayed_and_unknown_packets_do_not_move_the_endpoint(
    bed: &Bed,
    client: &mut Client,
) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    let replayed = session.seal(&client.packet(&service, b"once"));
    client.send(&replayed)?;
    service.expect(b"once")?;
    let mut forged = session.clone().seal(&client.packet(&service, b"forged"));
    forged[20] ^= 1;
    let mut unknown = session.clone();
    unknown.remote_index ^= 1;
    let unknown = unknown.seal_at(50, &[]);
    not_followed(bed, client, &mut session, |client| {
        [&replayed, &forged, &unknown].into_iter().try_for_each(|message| client.send(message))
    })
}

fn wrong_initiations_do_not_move_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    let first = client.initiate()?;
    let replayed = first.message.clone();
    let mut session = client.response_to(first)?;
    client.send(&session.keepalive())?;
    not_followed(bed, client, &mut session, |client| {
        client.send(&replayed)?;
        let mut wrong_mac1 = client.initiation()?.message;
        wrong_mac1[120] ^= 1;
        client.send(&wrong_mac1)?;
        let mut forged = client.initiation()?.message;
        forged[100] ^= 1;
        macs::renew(&mut forged, &client.secrets.remote, None);
        client.send(&forged)
    })
}

fn cookie_reply_does_not_move_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    let initiation = client.initiate()?;
    let response = client.expect(RESPONSE, PATIENCE)?.bytes;
    let mut session = initiation.complete(&client.secrets, &response)?;
    client.send(&session.keepalive())?;
    let reply = macs::cookie_reply(&client.secrets.public, &response, &[7; 16])?;
    not_followed(bed, client, &mut session, |client| client.send(&reply))
}

fn answers_follow_the_endpoint(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"at home")?;
    let home = client.move_to_new_port()?;
    client.exchange(&mut session, &service, b"away")?;
    ensure!(home.receive(tests::scripted::client::SILENCE)?.is_none(), "something was sent to where we were");
    Ok(())
}

fn first_answer_goes_where_the_packet_came_from(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"at home")?;
    for round in 0..40_u32 {
        client.move_to_new_port()?;
        client.send(&session.seal(&client.packet(&service, &round.to_be_bytes())))?;
        service.expect(&round.to_be_bytes())?;
        service.send(client, b"answer")?;
        let (_, _, inner) = client.data(&session, PATIENCE).with_context(|| format!("round {round}"))?;
        ensure!(inner.payload == b"answer", "{:?}", inner.payload);
    }
    Ok(())
}

fn answers_leave_from_the_address_dialled(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    for host in [GATEWAY_HOST + 2, GATEWAY_HOST + 1, GATEWAY_HOST] {
        let Addresses { v4, v6 } = outer(host);
        if host != GATEWAY_HOST {
            // Longer prefixes would make them secondary ones of another network.
            bed.gateway.namespace.add_address(UPLINK, v4.into(), 24)?;
            bed.gateway.namespace.add_address(UPLINK, v6.into(), 64)?;
        }
        for family in Family::BOTH {
            let mut client = bed.admit(family)?;
            client.gateway = std::net::SocketAddr::new(outer(host).of(family), LISTEN_PORT);
            let initiation = client.initiate()?;
            let response = client.expect(RESPONSE, PATIENCE)?;
            ensure!(
                response.from == client.gateway,
                "{} was dialled, {} responds",
                client.gateway,
                response.from
            );
            let mut session = initiation.complete(&client.secrets, &response.bytes)?;
            let other = bed.service(family)?;
            client.send(&session.seal(&client.packet(&other, b"ping")))?;
            other.expect(b"ping")?;
            other.send(&client, b"pong")?;
            let data = client.expect(TRANSPORT, PATIENCE)?;
            ensure!(data.from == client.gateway, "{} was dialled, {} sends", client.gateway, data.from);
        }
    }
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, b"and the one who watched")
}

fn endpoints_of_both_families_alternate_without_loss(bed: &Bed, client: &mut Client) -> Result<()> {
    const ROUNDS: u32 = 60;
    let service = bed.service(Family::V4)?;
    let mut clients = [bed.admit(Family::V4)?, bed.admit(Family::V6)?];
    let mut sessions = Vec::new();
    for client in &mut clients {
        let mut session = client.connect()?;
        client.exchange(&mut session, &service, b"here")?;
        sessions.push(session);
    }
    for round in 0..ROUNDS {
        for client in &clients {
            service.send(client, &[round as u8; 200])?;
        }
        if round % 8 == 7 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    for (client, session) in clients.iter().zip(&sessions) {
        for round in 0..ROUNDS {
            let (_, _, inner) = client.data(session, PATIENCE)?;
            ensure!(inner.payload == [round as u8; 200], "packet {round} is {:?}", inner.payload.first());
        }
    }
    client.connect().map(|_| ())
}

/// Waits until the gateway counts exactly this: received, sent.
fn counted(bed: &Bed, client: &Client, expected: (u64, u64)) -> Result<()> {
    let counted = wait_until("the counters are right", PATIENCE, || Ok(bed.transfer(client)? == expected));
    counted.with_context(|| format!("{:?}, not {expected:?}", bed.transfer(client)))
}

fn transfer_counts_every_byte_of_handshakes_and_data(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(Family::V4)?;
    let mut session = client.handshake()?;
    counted(bed, client, (148, 92))?;
    client.send(&session.keepalive())?;
    counted(bed, client, (148 + 32, 92))?;
    // 28 bytes of headers and 57 of payload are padded to 96, and 32 more make a message.
    let payload = [0x77; 57];
    for count in 1..=10 {
        client.send(&session.seal(&client.packet(&service, &payload)))?;
        service.expect(&payload)?;
        counted(bed, client, (180 + count * 128, 92 + (count - 1) * 128))?;
        service.send(client, &payload)?;
        let (datagram, ..) = client.data(&session, PATIENCE)?;
        ensure!(datagram.bytes.len() == 128, "a message of {} bytes", datagram.bytes.len());
    }
    counted(bed, client, (180 + 1280, 92 + 1280))?;
    // Authentic, though of no use: counted all the same.
    client.send(&session.seal(&[0xff; 16]))?;
    counted(bed, client, (180 + 1280 + 48, 92 + 1280))
}

fn transfer_does_not_count_what_is_not_authentic(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    counted(bed, client, (180, 92))?;
    let message = session.seal(&client.packet(&service, b"once"));
    client.send(&message)?;
    service.expect(b"once")?;
    let received = 180 + message.len() as u64;
    counted(bed, client, (received, 92))?;
    let mut forged = message.clone();
    forged[8] ^= 0x40;
    for wrong in [&message, &forged] {
        client.send(wrong)?;
    }
    let again = session.seal(&client.packet(&service, b"again"));
    client.send(&again)?;
    service.expect(b"again")?;
    counted(bed, client, (received + again.len() as u64, 92))
}

/// Sends a packet with these ECN fields; what is delivered.
fn ecn_in(bed: &Bed, client: &mut Client, outer_ecn: u8, inner_ecn: u8) -> Result<Option<u8>> {
    let service = bed.service(client.family())?;
    let mut session = client.connect()?;
    client.wire.use_tos(outer_ecn)?;
    client.send(&session.seal(&client.packet_with_tos(&service, inner_ecn, b"marked")))?;
    client.wire.use_tos(0)?;
    client.send(&session.seal(&client.packet(&service, b"unmarked")))?;
    let first = service.wire.receive(PATIENCE)?.context("nothing was delivered")?;
    if first.bytes == b"unmarked" {
        return Ok(None);
    }
    service.expect(b"unmarked")?;
    Ok(Some(first.tos))
}

/// The ECN field (RFC 3168).
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

fn ecn_table(bed: &Bed, client: &mut Client, table: &[(u8, u8, Option<u8>)]) -> Result<()> {
    for (outer, inner, expected) in table {
        let delivered = ecn_in(bed, client, *outer, *inner)?;
        ensure!(
            delivered == *expected,
            "outer {outer}, inner {inner}: {delivered:?} was delivered, not {expected:?}"
        );
    }
    Ok(())
}

fn congestion_mark_reaches_the_inner_header(bed: &Bed, client: &mut Client) -> Result<()> {
    // RFC 6040, figure 4; the DSCP stays as it is.
    let dscp = 0xb8;
    ecn_table(
        bed,
        client,
        &[
            (CE, ECT_0, Some(CE)),
            (CE, ECT_1, Some(CE)),
            (CE, CE, Some(CE)),
            (CE, dscp | ECT_0, Some(dscp | CE)),
        ],
    )
}

fn congestion_mark_drops_what_is_not_capable(bed: &Bed, client: &mut Client) -> Result<()> {
    ecn_table(bed, client, &[(CE, NOT_ECT, None), (CE, 0xb8 | NOT_ECT, None)])
}

fn capable_outer_header_changes_nothing_inside(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut table = Vec::new();
    for outer in [NOT_ECT, ECT_0] {
        for inner in [NOT_ECT, ECT_1, ECT_0, CE, 0xb8 | ECT_0] {
            table.push((outer, inner, Some(inner)));
        }
    }
    table.push((ECT_1, NOT_ECT, Some(NOT_ECT)));
    ecn_table(bed, client, &table)
}

/// The outer traffic class of a packet of the service with this one.
fn outer_tos(client: &Client, session: &Session, service: &tests::scripted::Service, tos: u8) -> Result<u8> {
    service.wire.use_tos(tos)?;
    service.send(client, &[tos])?;
    let (datagram, _, inner) = client.data(session, PATIENCE)?;
    ensure!((inner.tos, &inner.payload[..]) == (tos, &[tos][..]), "{tos:#x} arrived as {:#x}", inner.tos);
    Ok(datagram.tos)
}

fn inner_ecn_is_copied_out(bed: &Bed, client: &mut Client) -> Result<()> {
    for family in Family::BOTH {
        let service = bed.service(family)?;
        let mut session = client.connect()?;
        client.exchange(&mut session, &service, b"here")?;
        for ecn in [NOT_ECT, ECT_1, ECT_0, CE] {
            let outer = outer_tos(client, &session, &service, ecn)?;
            ensure!(outer == ecn, "{family:?}: inner {ecn} became outer {outer:#x}");
        }
    }
    Ok(())
}

fn inner_dscp_stays_inside(bed: &Bed, client: &mut Client) -> Result<()> {
    for family in Family::BOTH {
        let service = bed.service(family)?;
        let mut session = client.connect()?;
        client.exchange(&mut session, &service, b"here")?;
        for dscp in [0xb8, 0x20, 0xfc] {
            let outer = outer_tos(client, &session, &service, dscp)?;
            ensure!(outer & 0xfc == 0, "{family:?}: {dscp:#x} shows as outer {outer:#x}");
        }
    }
    Ok(())
}
