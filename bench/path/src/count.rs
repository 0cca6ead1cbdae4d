//! Batches for callgrind, which collects inside [`measured`] only and writes one part of its output per call.

use std::hint::black_box;

use aead::Aead;
use anyhow::Result;
use bench::load::Direction;
use bench::path::{Passed, Scenario};
use bench_path::rig::Rig;

/// Batches per scenario: enough that what happens once per turn, and not per batch, does not show.
const BATCH_COUNT: usize = 8;
/// A backend that every x86-64 runs alike under valgrind, which does not know AVX-512. Its own instructions are not
/// counted.
const BACKEND: &str = "aws-lc-rs";

/// Clients, and bytes of inner packet: the engine without the cipher costs the same at all lengths, or should.
const SHAPES: [(u32, u16); 3] = [(1, 200), (1, 1228), (1000, 200)];

/// Runs every scenario and prints, in this order, what [`measured`] was called with.
pub fn run() -> Result<()> {
    let aead = Aead::by_name(BACKEND)?;
    for direction in [Direction::Decrypt, Direction::Encrypt, Direction::Hairpin] {
        for (clients, len) in SHAPES {
            let mut rig = Rig::new(aead, clients)?;
            rig.load(direction, len.into(), BATCH_COUNT);
            let warm = rig.turn_until_idle();
            rig.verify(direction, warm)?;
            rig.load(direction, len.into(), BATCH_COUNT);
            let packets = measured(&mut rig);
            rig.verify(direction, packets)?;
            let scenario = Scenario { direction, clients, len };
            println!("{}", serde_json::to_string(&Passed { scenario, packets: packets as u64 })?);
        }
    }
    Ok(())
}

/// What callgrind is told to collect; a function of its own in the program.
#[inline(never)]
fn measured(rig: &mut Rig) -> usize {
    let packets = rig.turn_until_idle();
    // Keeps the call from becoming a jump, of which callgrind would not see the end.
    black_box(packets)
}
