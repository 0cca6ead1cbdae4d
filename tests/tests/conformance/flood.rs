//! A stranger's garbage, a hundred thousand datagrams of it, beside a client whose packets all have to arrive.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use tests::{
    Losses,
    scripted::{
        Bed, Case, Client, Service, Session,
        client::{PATIENCE, SILENCE},
        inner::Inner,
        layout::{self, COOKIE_REPLY_LEN, INITIATION_LEN, RESPONSE_LEN, TRANSPORT},
        macs,
    },
};

const DATAGRAMS: usize = 100_000;

/// Fewer than a veth's ring holds: what overflows there is not the gateway's loss.
const BURST_LEN: usize = 32;

/// The longest UDP payload over IPv4; one in this many datagrams has it, for it takes 45 fragments.
const LONGEST: usize = 65_507;
const LONGEST_EVERY: usize = 4000;

/// What the gateway may grow by: allocators keep what they once had.
const GROWTH_MAX_KIB: u64 = 48 * 1024;

/// What the gateway may write about it.
const LOG_LINES_MAX: usize = 100;

pub const CASES: &[Case] = tests::cases! {
    garbage_loses_no_packet_of_a_client_and_no_memory,
};

/// Numbers that look random and are the same in each run (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A message of a type, with noise for contents.
    fn message(&mut self, kind: u32, len: usize) -> Vec<u8> {
        let mut bytes = self.bytes(len);
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes
    }
}

/// One datagram of garbage; `live_index` is that of a session.
fn garbage(noise: &mut Noise, number: usize, gateway_key: &[u8; 32], live_index: u32) -> Vec<u8> {
    if number % LONGEST_EVERY == LONGEST_EVERY - 1 {
        return noise.message(TRANSPORT, LONGEST);
    }
    let len = noise.below(1473);
    match number % 8 {
        0 => noise.bytes(len),
        kind @ (1 | 2) => {
            let mut message = noise.message(kind as u32, [INITIATION_LEN, RESPONSE_LEN][kind - 1]);
            macs::renew(&mut message, gateway_key, None);
            message
        }
        3 => noise.message(layout::COOKIE_REPLY, COOKIE_REPLY_LEN),
        4 => noise.message(TRANSPORT, 32 + len / 2),
        5 => {
            let mut message = noise.message(TRANSPORT, 32 + len / 2);
            message[4..8].copy_from_slice(&live_index.to_le_bytes());
            message
        }
        6 => noise.message(number as u32 % 6, 4 + len / 2),
        _ => Vec::new(),
    }
}

fn send_garbage(stranger: &Client, live_index: u32) -> Result<()> {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for number in 0..DATAGRAMS {
        stranger.send(&garbage(&mut noise, number, &stranger.secrets.remote, live_index))?;
        if number % BURST_LEN == BURST_LEN - 1 || number % LONGEST_EVERY == LONGEST_EVERY - 1 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// What a paced flow in both directions lost.
struct Flow {
    sent: u32,
    to_service: BTreeSet<u32>,
    to_client: BTreeSet<u32>,
}

impl Flow {
    /// Sends a numbered packet each way every few milliseconds until `is_over`.
    fn run(client: &Client, session: &mut Session, service: &Service, is_over: &AtomicBool) -> Result<Self> {
        let mut flow = Self { sent: 0, to_service: BTreeSet::new(), to_client: BTreeSet::new() };
        while !is_over.load(Ordering::Relaxed) {
            let number = flow.sent.to_be_bytes();
            client.send(&session.seal(&client.packet(service, &number)))?;
            service.send(client, &number)?;
            flow.sent += 1;
            flow.collect(client, session, service, Duration::from_millis(2))?;
        }
        let end = Instant::now() + PATIENCE;
        while flow.lost() > 0 && Instant::now() < end {
            flow.collect(client, session, service, SILENCE)?;
        }
        Ok(flow)
    }

    /// Takes what has arrived, and waits a moment for more.
    fn collect(
        &mut self,
        client: &Client,
        session: &Session,
        service: &Service,
        patience: Duration,
    ) -> Result<()> {
        while let Some(datagram) = service.wire.receive(patience / 2)? {
            self.to_service.insert(u32::from_be_bytes(datagram.bytes[..].try_into()?));
        }
        while let Some(datagram) = client.wire.receive(patience / 2)? {
            let (_, plaintext) = session.open(&datagram.bytes)?;
            if !plaintext.is_empty() {
                self.to_client.insert(u32::from_be_bytes(Inner::parse(&plaintext)?.payload[..].try_into()?));
            }
        }
        Ok(())
    }

    fn lost(&self) -> usize {
        2 * self.sent as usize - self.to_service.len() - self.to_client.len()
    }
}

/// Resident memory of the gateway.
fn resident_kib(bed: &Bed) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", bed.gateway.running()?.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn log_lines(bed: &Bed) -> Result<usize> {
    Ok(bed.gateway.running()?.output().lines().count())
}

fn garbage_loses_no_packet_of_a_client_and_no_memory(bed: &Bed, client: &mut Client) -> Result<()> {
    let service = bed.service(client.family())?;
    let stranger = bed.stranger(client.family())?;
    let mut session = client.connect()?;
    client.exchange(&mut session, &service, &[0; 4])?;
    let losses = Losses::read(std::slice::from_ref(&bed.gateway.namespace))?;
    let (memory, lines) = (resident_kib(bed)?, log_lines(bed)?);
    let (is_over, live_index) = (AtomicBool::new(false), session.remote_index);
    let flow = thread::scope(|scope| {
        let flow = scope.spawn(|| Flow::run(client, &mut session, &service, &is_over));
        let sent = send_garbage(&stranger, live_index);
        is_over.store(true, Ordering::Relaxed);
        let flow = flow.join().map_err(|_| anyhow!("the flow panicked"))?;
        sent.and(flow)
    })?;
    let losses = Losses::read(std::slice::from_ref(&bed.gateway.namespace))?.since(&losses);

    ensure!(flow.sent > 200, "only {} packets each way beside the flood", flow.sent);
    ensure!(flow.lost() == 0, "{} of {} packets were lost; {losses}", flow.lost(), 2 * flow.sent);
    let growth = resident_kib(bed)?.saturating_sub(memory);
    ensure!(growth < GROWTH_MAX_KIB, "{growth} KiB more than the {memory} before");
    let written = log_lines(bed)? - lines;
    ensure!(written < LOG_LINES_MAX, "{written} lines were logged");
    // Where it takes long to read, garbage with a good mac1 is load.
    crate::load::calm(client).map(|_| ())
}
