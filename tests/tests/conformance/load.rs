//! A gateway under load: cookies instead of answers, and limits for who has one (P5).

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
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

/// What a slow machine may take for a flood.
const BUSY_MAX: Duration = Duration::from_secs(40);

/// Messages with a right cookie that an address may send at once, and the time that earns it another.
const BURST: usize = 5;
const REFILL: Duration = Duration::from_millis(50);

/// Peers that send with a right cookie at the same time.
const CLIENTS: usize = 16;

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
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            // Of this thread alone. Whoever is stopped while it sends gives the gateway the time to read it all.
            rustix::process::setpriority_process(None, -20)?;
            (0..FLOOD_LEN).try_for_each(|_| stranger.send(&message))
        });
        sender.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?
    })
}

/// Puts the gateway under load, as a probe without a cookie shows: what it was answered with.
fn overload(bed: &Bed, probe: &mut Client) -> Result<(Vec<u8>, Datagram)> {
    let start = Instant::now();
    while start.elapsed() < BUSY_MAX {
        flood(bed, probe.family())?;
        // The queue may still be so full that the probe is lost; the state outlasts it.
        for _ in 0..4 {
            let message = probe.initiate()?.message;
            let mut patience = Duration::from_millis(500);
            while let Some(datagram) = probe.wire.receive(patience)? {
                if kind(&datagram.bytes) == COOKIE_REPLY {
                    if datagram.bytes[4..8] == message[4..8] {
                        return Ok((message, datagram));
                    }
                    // Replies to earlier probes come first, and this one's right behind them.
                    patience = PATIENCE;
                }
            }
        }
    }
    bail!("{FLOOD_LEN} handshake messages at once do not put the gateway under load")
}

/// Tries again what gives nothing where the load had ended already, which lasts a second only.
fn while_loaded<T>(what: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    for _ in 0..5 {
        if let Some(outcome) = attempt()? {
            return Ok(outcome);
        }
    }
    bail!("{what}, each of five times under load")
}

/// The cookie reply that comes next; nothing where something else does.
fn cookie_reply(client: &Client) -> Result<Option<Vec<u8>>> {
    let bytes = client.next(PATIENCE)?.bytes;
    match kind(&bytes) {
        COOKIE_REPLY => Ok(Some(bytes)),
        _ => Ok(None),
    }
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
            _ => ensure!(start.elapsed() < BUSY_MAX, "still under load after {BUSY_MAX:?}"),
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
    while_loaded("a wrong mac2 is answered", || {
        let (message, reply) = overload(bed, client)?;
        let mut cookie = macs::open_cookie_reply(&client.secrets.remote, &message, &reply.bytes)?;
        cookie[0] ^= 1;
        let initiation = initiate_with(client, &cookie)?;
        let Some(again) = cookie_reply(client)? else { return Ok(None) };
        macs::open_cookie_reply(&client.secrets.remote, &initiation.message, &again).map(Some)
    })?;
    Ok(())
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
    while_loaded("the cookie is good at another port", || {
        let (message, reply) = overload(bed, client)?;
        let cookie = macs::open_cookie_reply(&client.secrets.remote, &message, &reply.bytes)?;
        client.move_to_new_port()?;
        initiate_with(client, &cookie)?;
        cookie_reply(client)
    })?;
    Ok(())
}

fn cookie_is_bound_to_the_address(bed: &Bed, client: &mut Client) -> Result<()> {
    let [there] = addresses(client, [100])?;
    let here = client.wire.local()?.ip();
    while_loaded("the cookie is good at another address", || {
        client.move_to(here)?;
        let (message, reply) = overload(bed, client)?;
        let cookie = macs::open_cookie_reply(&client.secrets.remote, &message, &reply.bytes)?;
        let same_port = SocketAddr::new(there, client.wire.local()?.port());
        client.wire = Wire::bind(&client.namespace, same_port)?;
        initiate_with(client, &cookie)?;
        cookie_reply(client)
    })?;
    Ok(())
}

fn response_under_load_gets_a_cookie(bed: &Bed, client: &mut Client) -> Result<()> {
    while_loaded("a response is taken without a cookie, or not with it", || {
        let client = bed.admit(client.family())?;
        let service = bed.service(client.family())?;
        bed.dial(&client)?;
        service.send(&client, b"staged")?;
        let mut message = client.expect(INITIATION, PATIENCE)?.bytes;
        overload(bed, &mut bed.admit(client.family())?)?;
        // On a slow machine there is another by now, and only that one is waited for an answer to.
        while let Some(datagram) = client.wire.receive(Duration::ZERO)? {
            message = datagram.bytes;
        }
        let respond = |cookie: Option<&Mac>| {
            IncomingInitiation::open(&client.secrets, &message)?.respond(
                &client.secrets,
                random_index()?,
                cookie,
            )
        };
        let (response, _) = respond(None)?;
        client.send(&response)?;
        let Some(reply) = cookie_reply(&client)? else { return Ok(None) };
        let cookie = macs::open_cookie_reply(&client.secrets.remote, &response, &reply)?;
        let (response, session) = respond(Some(&cookie))?;
        client.send(&response)?;
        let Ok(data) = client.expect(TRANSPORT, PATIENCE) else { return Ok(None) };
        session.open(&data.bytes).map(Some)
    })?;
    Ok(())
}

fn load_ends_a_second_after_the_flood(bed: &Bed, client: &mut Client) -> Result<()> {
    // The reply shows that what was queued has been dealt with.
    overload(bed, client)?;
    let took = calm(client)?;
    ensure!(took < LOAD_LASTS + Duration::from_secs(10), "it took {took:?}");
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

/// What came of peers that sent with their cookies, all at once.
struct Shot {
    answered: usize,
    /// How many more than a burst the limiter may have let pass meanwhile.
    refilled: usize,
}

impl Shot {
    /// A burst, and what a slow machine earned while it read the messages.
    fn is_limited(&self) -> bool {
        (BURST..=BURST + self.refilled).contains(&self.answered)
    }
}

/// Peers that send from `places` by turns, each once and with its cookie, all at once.
fn answered_at_once(bed: &Bed, family: Family, places: &[IpAddr]) -> Result<Shot> {
    let mut clients = Vec::new();
    for place in places.iter().cycle().take(CLIENTS) {
        let mut client = bed.admit(family)?;
        client.move_to(*place)?;
        clients.push(client);
    }
    let mut witness = bed.admit(family)?;
    let cookies: Vec<_> = clients
        .iter_mut()
        .map(|client| {
            while_loaded("no cookie is needed", || {
                let message = client.initiate()?.message;
                let Some(reply) = cookie_reply(client)? else {
                    overload(bed, &mut witness)?;
                    return Ok(None);
                };
                macs::open_cookie_reply(&client.secrets.remote, &message, &reply).map(Some)
            })
        })
        .collect::<Result<_>>()?;
    let due = CLIENTS.min(BURST * places.len());
    while_loaded("no cookie was needed", || shoot(bed, &mut witness, &mut clients, &cookies, due))
}

/// Waits for `due` answers, and for more that must not come. Nothing where the load ended meanwhile.
fn shoot(
    bed: &Bed,
    witness: &mut Client,
    clients: &mut [Client],
    cookies: &[Mac],
    due: usize,
) -> Result<Option<Shot>> {
    overload(bed, witness)?;
    let start = Instant::now();
    for (client, cookie) in clients.iter_mut().zip(cookies) {
        // Answers of the time before.
        while client.wire.receive(Duration::ZERO)?.is_some() {}
        initiate_with(client, cookie)?;
    }
    // What is sent after them is read after them.
    witness.initiate()?;
    if cookie_reply(witness)?.is_none() {
        return Ok(None);
    }
    let mut answers = Vec::new();
    while answers.len() < due && start.elapsed() < PATIENCE {
        thread::sleep(SILENCE);
        for client in &*clients {
            match client.wire.receive(Duration::ZERO)? {
                Some(datagram) if kind(&datagram.bytes) == RESPONSE => answers.push(datagram.at),
                Some(_) => bail!("a right cookie was answered with a cookie"),
                None => {}
            }
        }
    }
    // The last that was answered was read before its answer came.
    let spread = answers.iter().max().map_or(Duration::ZERO, |last| last.saturating_duration_since(start));
    let refilled = usize::try_from(spread.as_millis() / REFILL.as_millis())?;
    Ok(Some(Shot { answered: answers.len(), refilled }))
}

fn address_is_limited_to_a_burst(bed: &Bed, client: &mut Client) -> Result<()> {
    let places = addresses(client, [110])?;
    let shot = answered_at_once(bed, client.family(), &places)?;
    ensure!(shot.is_limited(), "{} of {CLIENTS} were answered", shot.answered);
    calm(client).map(|_| ())
}

fn network_of_64_bits_is_limited_as_one(bed: &Bed, client: &mut Client) -> Result<()> {
    let other = bed.stranger(Family::V6)?;
    let places = addresses(&other, [120, 121, 122, 123])?;
    let shot = answered_at_once(bed, Family::V6, &places)?;
    ensure!(shot.is_limited(), "{} of {CLIENTS} were answered", shot.answered);
    calm(client).map(|_| ())
}

fn other_addresses_have_limits_of_their_own(bed: &Bed, client: &mut Client) -> Result<()> {
    let other = bed.stranger(Family::V4)?;
    let places = addresses(&other, [130, 131, 132, 133])?;
    let answered = answered_at_once(bed, Family::V4, &places)?.answered;
    ensure!(answered == CLIENTS, "{answered} of {CLIENTS} from four addresses were answered");
    calm(client).map(|_| ())
}
