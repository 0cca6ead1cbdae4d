//! Devices among themselves and an adversary on the wire, at random, in virtual time.
//!
//! One seed is one run that can be repeated: `WGX_SIM_SEED` runs one, `WGX_SIM_SEEDS` that many.

mod eavesdropper;
mod injected;
#[path = "../simulation/network.rs"]
#[allow(dead_code, reason = "only its generator of randomness is needed here")]
mod network;
#[path = "../simulation/node.rs"]
#[allow(dead_code, reason = "shared with the simulation, which uses all of it")]
mod node;
mod reference;
mod seeds;
mod world;
