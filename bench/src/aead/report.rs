//! All that is measured, as it is written to disk.

use std::path::Path;

use aead::Aead;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    Direction, Figure,
    implementation::{AwsLc, Implementation, OneByOne, Ours, Ring, RustCrypto},
    ipsec_mb::IpsecMb,
    load::{self, Frames, Lens, Load, PACKET_COUNT, Whereabouts},
    rounds::{Entrant, compare},
};

/// Sizes of packets, in bytes of text.
const SIZES: [usize; 5] = [64, 208, 512, 1200, 1424];
/// Sizes for which the number of packets at a time, and of keys, is varied.
const SOME_SIZES: [usize; 3] = [64, 208, 1424];
/// Tables of packets that others wrote.
const FAR: [(&str, Whereabouts); 2] =
    [("shared-cache", Whereabouts::SharedCache), ("memory", Whereabouts::Memory)];
const BATCH_LENS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// What one implementation needs in one setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Which table it belongs to: `sizes`, `shared-cache`, `memory`, `batches` or `keys`.
    pub table: String,
    /// The packets' length in bytes of text, or `mix`.
    pub load: String,
    /// Packets given at a time.
    pub batch_len: usize,
    /// Distinct keys among the packets.
    pub key_count: usize,
    /// Who.
    pub implementation: String,
    /// Which way.
    pub direction: Direction,
    /// ns per packet.
    pub figure: Figure,
}

/// A whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measurements {
    /// The processor, as it calls itself.
    pub processor: String,
    /// Name of our fastest backend here: the one the goals are about.
    pub ours: String,
    /// Why ipsec-mb is not among the implementations, if it is not.
    pub without_ipsec_mb: Option<String>,
    /// All figures.
    pub cells: Vec<Cell>,
}

impl Measurements {
    /// The figure of that setting, if it was measured.
    pub fn figure(&self, wanted: &Cell) -> Option<Figure> {
        let is_wanted = |cell: &&Cell| {
            (&cell.table, &cell.load, &cell.implementation, cell.batch_len, cell.key_count, cell.direction)
                == (
                    &wanted.table,
                    &wanted.load,
                    &wanted.implementation,
                    wanted.batch_len,
                    wanted.key_count,
                    wanted.direction,
                )
        };
        self.cells.iter().find(is_wanted).map(|cell| cell.figure)
    }
}

/// How to measure.
struct Run<'a> {
    ipsec_mb: Option<&'a Path>,
    round_count: usize,
    frames: Frames,
    cells: Vec<Cell>,
}

/// Measures everything, in so many rounds each.
///
/// # Errors
/// An implementation that gives wrong answers, or ipsec-mb when it is given and does not run.
pub fn measure(ipsec_mb: Option<&Path>, round_count: usize) -> Result<Measurements> {
    let mut run = Run { ipsec_mb, round_count, frames: Frames::new(), cells: Vec::new() };
    for (name, lens) in loads() {
        run.sizes(&name, &lens)?;
    }
    for size in SOME_SIZES {
        for (table, whereabouts) in FAR {
            run.far(table, whereabouts, size)?;
        }
    }
    for size in SOME_SIZES {
        run.batches(size)?;
        run.keys(size)?;
    }
    let ours = Aead::detect().name().to_owned();
    Ok(Measurements { processor: processor(), ours, without_ipsec_mb: None, cells: run.cells })
}

fn loads() -> impl Iterator<Item = (String, Lens)> {
    let sizes = SIZES.into_iter().map(|size| (size.to_string(), load::equal(size)));
    sizes.chain([("mix".to_owned(), load::mix())])
}

/// Our backends, each after its self-test.
fn backends() -> Result<Vec<Aead>> {
    Aead::names().map(|name| Aead::by_name(name).context("a backend of ours cannot run")).collect()
}

fn ours(aead: Aead, load: &Load, batch_len: usize) -> Entrant<'_> {
    let implementation = Box::new(Ours::new(aead, load, batch_len));
    Entrant { name: aead.name().to_owned(), batch_len, load, implementation }
}

fn library<'a>(name: &str, load: &'a Load, implementation: impl Implementation + 'static) -> Entrant<'a> {
    Entrant { name: name.to_owned(), batch_len: 1, load, implementation: Box::new(implementation) }
}

impl Run<'_> {
    fn ipsec_mb<'l>(&self, load: &'l Load, batch_len: usize) -> Result<Option<Entrant<'l>>> {
        let Some(program) = self.ipsec_mb else { return Ok(None) };
        let implementation = Box::new(IpsecMb::start(program, load, batch_len)?);
        Ok(Some(Entrant { name: "ipsec-mb".to_owned(), batch_len, load, implementation }))
    }

    /// Everyone, with as many packets and keys as there are.
    fn sizes(&mut self, name: &str, lens: &Lens) -> Result<()> {
        let load = Load::new(lens, PACKET_COUNT);
        let mut entrants: Vec<Entrant<'_>> =
            backends()?.into_iter().map(|aead| ours(aead, &load, PACKET_COUNT)).collect();
        entrants.push(library("ring", &load, OneByOne::<Ring>::new(&load)));
        entrants.push(library("aws-lc-rs, per packet", &load, OneByOne::<AwsLc>::new(&load)));
        entrants.push(library("chacha20poly1305", &load, OneByOne::<RustCrypto>::new(&load)));
        entrants.extend(self.ipsec_mb(&load, PACKET_COUNT)?);
        self.take("sizes", name, &mut entrants)
    }

    /// Packets that come from elsewhere, as all do that a gateway forwards.
    fn far(&mut self, table: &str, whereabouts: Whereabouts, size: usize) -> Result<()> {
        let load = Load::new(&load::equal(size), PACKET_COUNT).at(whereabouts);
        let mut entrants = vec![ours(Aead::detect(), &load, PACKET_COUNT)];
        entrants.push(library("ring", &load, OneByOne::<Ring>::new(&load)));
        entrants.push(library("aws-lc-rs, per packet", &load, OneByOne::<AwsLc>::new(&load)));
        self.take(table, &size.to_string(), &mut entrants)
    }

    /// From which number of packets on our fastest backend pays.
    fn batches(&mut self, size: usize) -> Result<()> {
        let load = Load::new(&load::equal(size), PACKET_COUNT);
        let fastest = Aead::detect();
        let mut entrants: Vec<Entrant<'_>> =
            BATCH_LENS.map(|batch_len| ours(fastest, &load, batch_len)).into_iter().collect();
        entrants.push(library("ring", &load, OneByOne::<Ring>::new(&load)));
        entrants.push(library("aws-lc-rs, per packet", &load, OneByOne::<AwsLc>::new(&load)));
        self.take("batches", &size.to_string(), &mut entrants)
    }

    /// What distinct keys cost.
    fn keys(&mut self, size: usize) -> Result<()> {
        let [one, many] = [1, PACKET_COUNT].map(|key_count| Load::new(&load::equal(size), key_count));
        let fastest = Aead::detect();
        let mut entrants = vec![ours(fastest, &one, PACKET_COUNT), ours(fastest, &many, PACKET_COUNT)];
        for load in [&one, &many] {
            entrants.push(library("ring", load, OneByOne::<Ring>::new(load)));
        }
        self.take("keys", &size.to_string(), &mut entrants)
    }

    fn take(&mut self, table: &str, name: &str, entrants: &mut [Entrant<'_>]) -> Result<()> {
        eprintln!("    {table}: {name}");
        for direction in Direction::ALL {
            let figures = compare(entrants, &mut self.frames, direction, self.round_count)?;
            self.cells.extend(entrants.iter().zip(figures).map(|(entrant, figure)| Cell {
                table: table.to_owned(),
                load: name.to_owned(),
                batch_len: entrant.batch_len,
                key_count: entrant.load.keys.len(),
                implementation: entrant.name.clone(),
                direction,
                figure,
            }));
        }
        Ok(())
    }
}

fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
