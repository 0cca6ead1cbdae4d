//! Structures for longest-prefix matches, held against each other with prefixes as gateways have them.

mod structures;

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bench::path::Lookup;
use ipnet::IpNet;
use structures::{Dir24, Ours, Poptrie, PrefixTrie, TreeBitmap};

/// Look-ups of one measurement.
const PROBE_COUNT: usize = 1 << 14;
/// Addresses of the hot pattern: one batch of different flows, over and over.
const HOT_COUNT: usize = 64;
/// Times each measurement is made; the shortest counts.
const ROUNDS: usize = 9;
/// Changes timed, each with a snapshot after it.
const UPDATE_COUNT: usize = 9;

/// A structure under test. Values are `u32`, as slots of peers.
pub(crate) trait Table: Clone + Default {
    const NAME: &'static str;
    /// Whether it holds prefixes of IPv6 too.
    const HAS_V6: bool = true;

    /// A table of these prefixes, the value of each its place among them.
    fn build(prefixes: &[IpNet]) -> Self {
        let mut table = Self::default();
        for (value, prefix) in (0..).zip(prefixes) {
            table.insert(*prefix, value);
        }
        table
    }

    fn insert(&mut self, prefix: IpNet, value: u32);

    fn lookup(&self, address: IpAddr) -> Option<u32>;
}

/// Kinds of prefixes: each client its own addresses, one after the other; or subnets all over the place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hosts,
    Subnets,
}

/// Measures every structure and prints a line for each set of prefixes.
pub fn run(quick: bool) -> Result<()> {
    let counts: &[usize] = if quick { &[1, 1000, 100_000] } else { &[1, 1000, 100_000, 1_000_000] };
    for is_v6 in [false, true] {
        for kind in [Kind::Hosts, Kind::Subnets] {
            for count in counts {
                let prefixes: Vec<IpNet> = (0..*count).map(|number| prefix(kind, is_v6, number)).collect();
                measure::<Ours>(kind, &prefixes)?;
                measure::<Poptrie>(kind, &prefixes)?;
                measure::<TreeBitmap>(kind, &prefixes)?;
                measure::<PrefixTrie>(kind, &prefixes)?;
                measure::<Dir24>(kind, &prefixes)?;
            }
        }
    }
    Ok(())
}

fn measure<T: Table>(kind: Kind, prefixes: &[IpNet]) -> Result<()> {
    let is_v6 = prefixes[0].addr().is_ipv6();
    if is_v6 && !T::HAS_V6 {
        return Ok(());
    }
    let start = Instant::now();
    let mut table = T::build(prefixes);
    let build = start.elapsed();
    let mut counted = None;
    let memory = allocation_counter::measure(|| counted = Some(T::build(prefixes)));
    drop(counted);

    let uniform: Vec<IpAddr> =
        (0..PROBE_COUNT).map(|number| prefixes[hash(number) as usize % prefixes.len()].network()).collect();
    let hot: Vec<IpAddr> = uniform.iter().take(HOT_COUNT).copied().cycle().take(PROBE_COUNT).collect();
    ensure!(uniform.iter().all(|address| table.lookup(*address).is_some()), "{} has lost prefixes", T::NAME);

    let mut snapshot = table.clone();
    let mut updates: Vec<Duration> = (0..UPDATE_COUNT)
        .map(|number| {
            let prefix = prefixes[hash(number) as usize % prefixes.len()];
            let start = Instant::now();
            table.insert(prefix, number as u32);
            let next = table.clone();
            let time = start.elapsed();
            snapshot = next;
            time
        })
        .collect();
    updates.sort();
    drop(snapshot);
    let lookup = Lookup {
        structure: T::NAME.into(),
        family: if is_v6 { "v6" } else { "v4" }.into(),
        prefixes: if kind == Kind::Hosts { "hosts" } else { "subnets" }.into(),
        count: prefixes.len(),
        uniform_ns: per_lookup(&table, &uniform),
        hot_ns: per_lookup(&table, &hot),
        bytes_per_prefix: memory.bytes_current as f64 / prefixes.len() as f64,
        build_ms: build.as_secs_f64() * 1e3,
        update_us: updates[UPDATE_COUNT / 2].as_secs_f64() * 1e6,
    };
    println!("{}", serde_json::to_string(&lookup)?);
    Ok(())
}

/// Nanoseconds per look-up of one after the other, of which the processor may overlap as many as it can.
fn per_lookup<T: Table>(table: &T, addresses: &[IpAddr]) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for address in addresses {
            black_box(table.lookup(*black_box(address)));
        }
        best = best.min(start.elapsed());
    }
    best.as_nanos() as f64 / addresses.len() as f64
}

/// Hosts count up from 10.0.0.0 or `fd00::`; subnets have 16 to 28 (IPv6: 32 to 64) bits that look random.
fn prefix(kind: Kind, is_v6: bool, number: usize) -> IpNet {
    let hash = hash(number);
    match (kind, is_v6) {
        (Kind::Hosts, false) => IpNet::from(IpAddr::from((0x0a00_0000 + number as u32).to_be_bytes())),
        (Kind::Hosts, true) => IpNet::from(IpAddr::from(((0xfd00 << 112) + number as u128).to_be_bytes())),
        (Kind::Subnets, false) => {
            let address = IpAddr::from(((hash >> 8) as u32).to_be_bytes());
            IpNet::new_assert(address, 16 + (hash % 13) as u8).trunc()
        }
        (Kind::Subnets, true) => {
            let address = IpAddr::from((u128::from(hash) << 64).to_be_bytes());
            IpNet::new_assert(address, 32 + (hash % 33) as u8).trunc()
        }
    }
}

/// `SplitMix64`: numbers that look random and are the same every time.
fn hash(number: usize) -> u64 {
    let mut z = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
