//! A gateway under load: cookies instead of answers, and limits for who has one (P5).

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    scripted::{
        Bed, Case, Client, Datagram, IncomingInitiation, Wire,
        client::{PATIENCE, SILENCE, random_index},
        layout::{COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, kind},
        macs::{self, Mac},
    },
    site::{Family, outer},
};

/// Handshake messages of one flood: more than the 512 of a queue of 4096 that the kernel calls load, many times.
const FLOOD_LEN: usize = 6000;

/// How long load is remembered.
const LOAD_LASTS: Duration = Duration::from_secs(1);

/// Messages with a right cookie that an address may send at once, and the time that earns it another.
const BURST: usize = 5;
const REFILL: Duration = Duration::from_millis(50);

pub const CASES: &[Case] = tests::cases! {
    without_load_nothing_is_limited,
    initiation_under_load_gets_a_cookie,
    initiation_with_the_cookie_is_answered_under_load,
    wrong_mac2_gets_a_cookie,
    wrong_mac1_gets_nothing_under_load,
    cookie_is_bound_to_the_port,
    cookie_is_bound_to_the_address,
    response_under_load_gets_a_cookie,
    load_ends_a_second_after_the_flood,
    address_is_limited_to_a_burst,
    network_of_64_bits_is_limited_as_one: "it limits each IPv6 address",
    other_addresses_have_limits_of_their_own,
};

/// Sends handshake messages that cost the gateway a Diffie-Hellman each, faster than it can do them.
fn flood(bed: &Bed, family: Family) -> Result<()> {
    let mut stranger = bed.stranger(family)?;
    let message = stranger.initiation()?.message;
    for _ in 0..FLOOD_LEN {
        stranger.send(&message)?;
    }
    Ok(())
}

/// Puts the gateway under load, as a probe without a cookie shows: what it was answered with.
fn overload(bed: &Bed, probe: &mut Client) -> Result<(Vec<u8>, Datagram)> {
    for _ in 0..4 {
        flood(bed, probe.family())?;
        // The queue may still be so full that the probe is lost; the state outlasts it.
        for _ in 0..4 {
            let message = probe.initiate()?.message;
            while let Some(datagram) = probe.wire.receive(Duration::from_millis(500))? {
                // Replies to earlier probes come first.
                if kind(&datagram.bytes) == COOKIE_REPLY && datagram.bytes[4..8] == message[4..8] {
                    return Ok((message, datagram));
                }
            }
        }
    }
    bail!("{FLOOD_LEN} handshake messages at once do not put the gateway under load")
}

/// A cookie for the client where it is now.
fn cookie(client: &mut Client) -> Result<Mac> {
    let message = client.initiate()?.message;
    let reply = client.expect(COOKIE_REPLY, PATIENCE)?.bytes;
    macs::open_cookie_reply(&client.secrets.remote, &message, &reply)
}

/// Sends an initiation with a cookie.
fn initiate_with(client: &mut Client, cookie: &Mac) -> Result<tests::scripted::Initiation> {
    let mut initiation = client.initiation()?;
    macs::renew(&mut initiation.message, &client.secrets.remote, Some(cookie));
    client.send(&initiation.message)?;
    Ok(initiation)
}

/// Waits until initiations are answered without a cookie; how long it took.
pub fn calm(client: &mut Client) -> Result<Duration> {
    let start = Instant::now();
    loop {
        client.initiate()?;
        match client.wire.receive(SILENCE)?.map(|datagram| kind(&datagram.bytes)) {
            Some(RESPONSE) => return Ok(start.elapsed()),
            _ => ensure!(start.elapsed() < PATIENCE, "still under load after {PATIENCE:?}"),
        }
        thread::sleep(SILENCE);
    }
}

fn without_load_nothing_is_limited(bed: &Bed, client: &mut Client) -> Result<()> {
    let mut clients = (0..12).map(|_| bed.admit(client.family())).collect::<Result<Vec<_>>>()?;
    let initiations = clients.iter_mut().map(Client::initiate).collect::<Result<Vec<_>>>()?;
    for (client, initiation) in clients.iter_mut().zip(initiations) {
        client.response_to(initiation)?;
    }
    Ok(())
}

fn initiation_under_load_gets_a_cookie(bed: &Bed, client: &mut Client) -> Result<()> {
    let (message, reply) = overload(bed, client)?;
    // Length, index and the associated data are checked by opening it.
    macs::open_cookie_reply(&client.secrets.remote, &message, &reply.bytes)?;
    ensure!(reply.tos == 0, "TOS {:#x}", reply.tos);
    Ok(())
}

fn initiation_with_the_cookie_is_answered_under_load(bed: &Bed, client: &mut Client) -> Result<()> {
    let (message, reply) = overload(bed, client)?;
    let cookie = macs::open_cookie_reply(&client.secrets.remote, &message, &reply.bytes)?;
    let initiation = initiate_with(client, &cookie)?;
    client.response_to(initiation).map(|_| ())
}

fn wrong_mac2_gets_a_cookie(bed: &Bed, client: &mut Client) -> Result<()> {
    let (message, reply) = overload(bed, client)?;
    let mut cookie = macs::open_cookie_reply(&client.secrets.remote, &message, &reply.bytes)?;
    cookie[0] ^= 1;
    let initiation = initiate_with(client, &cookie)?;
    let again = client.next(PATIENCE)?.bytes;
    macs::open_cookie_reply(&client.secrets.remote, &initiation.message, &again).map(|_| ())
}

fn wrong_mac1_gets_nothing_under_load(bed: &Bed, client: &mut Client) -> Result<()> {
    flood(bed, client.family())?;
    let mut message = client.initiation()?.message;
    message[116] ^= 1;
    for _ in 0..4 {
        client.send(&message)?;
        client.silence(SILENCE)?;
    }
    calm(client).map(|_| ())
}

fn cookie_is_bound_to_the_port(bed: &Bed, client: &mut Client) -> Result<()> {
    let (message, reply) = overload(bed, client)?;
    let cookie = macs::open_cookie_reply(&client.secrets.remote, &message, &reply.bytes)?;
    client.move_to_new_port()?;
    initiate_with(client, &cookie)?;
    client.expect(COOKIE_REPLY, PATIENCE).context("the cookie is good at another port").map(|_| ())
}

fn cookie_is_bound_to_the_address(bed: &Bed, client: &mut Client) -> Result<()> {
    let [there] = addresses(client, [100])?;
    let (message, reply) = overload(bed, client)?;
    let cookie = macs::open_cookie_reply(&client.secrets.remote, &message, &reply.bytes)?;
    let same_port = SocketAddr::new(there, client.wire.local()?.port());
    client.wire = Wire::bind(&client.namespace, same_port)?;
    initiate_with(client, &cookie)?;
    client.expect(COOKIE_REPLY, PATIENCE).context("the cookie is good at another address").map(|_| ())
}

fn response_under_load_gets_a_cookie(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    bed.dial(client)?;
    service.send(client, b"staged")?;
    let message = client.expect(INITIATION, PATIENCE)?.bytes;
    overload(bed, &mut bed.admit(client.family())?)?;
    let (response, _) = IncomingInitiation::open(&client.secrets, &message)?.respond(
        &client.secrets,
        random_index()?,
        None,
    )?;
    client.send(&response)?;
    let reply = client.next(PATIENCE)?.bytes;
    let cookie = macs::open_cookie_reply(&client.secrets.remote, &response, &reply)?;
    let (response, session) = IncomingInitiation::open(&client.secrets, &message)?.respond(
        &client.secrets,
        random_index()?,
        Some(&cookie),
    )?;
    client.send(&response)?;
    let data = client.expect(TRANSPORT, PATIENCE)?;
    session.open(&data.bytes).map(|_| ())
}

fn load_ends_a_second_after_the_flood(bed: &Bed, client: &mut Client) -> Result<()> {
    flood(bed, client.family())?;
    let took = calm(client)?;
    // What is queued takes its time; what counts is that the state ends.
    ensure!(took < LOAD_LASTS + Duration::from_secs(2), "it took {took:?}");
    Ok(())
}

/// Gives the client's namespace more addresses of its network, by host number.
fn addresses<const N: usize>(client: &Client, hosts: [u8; N]) -> Result<[IpAddr; N]> {
    let addresses = hosts.map(|host| outer(host).of(client.family()));
    for address in addresses {
        client.namespace.add_address("eth0", address, if address.is_ipv4() { 24 } else { 64 })?;
    }
    Ok(addresses)
}

/// Peers that send from `places` by turns, each once and with its cookie, all at once: how many are answered, and
/// how many more the limiter may have let pass meanwhile.
fn answered_at_once(bed: &Bed, family: Family, places: &[IpAddr]) -> Result<(usize, usize)> {
    const CLIENTS: usize = 16;
    let mut clients = Vec::new();
    for place in places.iter().cycle().take(CLIENTS) {
        let mut client = bed.admit(family)?;
        client.move_to(*place)?;
        clients.push(client);
    }
    overload(bed, &mut bed.admit(family)?)?;
    let cookies = clients.iter_mut().map(cookie).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    for (client, cookie) in clients.iter_mut().zip(&cookies) {
        initiate_with(client, cookie)?;
    }
    let spread = start.elapsed();
    thread::sleep(SILENCE);
    let mut answered = 0;
    for client in &clients {
        match client.wire.receive(Duration::from_millis(1))?.map(|datagram| kind(&datagram.bytes)) {
            Some(RESPONSE) => answered += 1,
            Some(COOKIE_REPLY) => bail!("a right cookie was answered with a cookie"),
            _ => {}
        }
    }
    // The gateway may have read the last of them as late as now.
    let refilled = (spread + SILENCE).as_millis() / REFILL.as_millis();
    Ok((answered, refilled as usize))
}

fn address_is_limited_to_a_burst(bed: &Bed, client: &mut Client) -> Result<()> {
    let places = addresses(client, [110])?;
    let (answered, refilled) = answered_at_once(bed, client.family(), &places)?;
    ensure!((BURST..=BURST + refilled).contains(&answered), "{answered} of 16 were answered");
    calm(client).map(|_| ())
}

fn network_of_64_bits_is_limited_as_one(bed: &Bed, client: &mut Client) -> Result<()> {
    let other = bed.stranger(Family::V6)?;
    let places = addresses(&other, [120, 121, 122, 123])?;
    let (answered, refilled) = answered_at_once(bed, Family::V6, &places)?;
    ensure!((BURST..=BURST + refilled).contains(&answered), "{answered} of 16 were answered");
    calm(client).map(|_| ())
}

fn other_addresses_have_limits_of_their_own(bed: &Bed, client: &mut Client) -> Result<()> {
    let other = bed.stranger(Family::V4)?;
    let places = addresses(&other, [130, 131, 132, 133])?;
    let (answered, _) = answered_at_once(bed, Family::V4, &places)?;
    ensure!(answered == 16, "{answered} of 16 from four addresses were answered");
    calm(client).map(|_| ())
}
