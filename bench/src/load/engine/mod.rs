//! What runs the trials: schedule, frames, ports, the loop and the account. Only with the feature `af-xdp`.

mod account;
mod core;
mod forward;
mod generator;
mod held_up;
mod live;
#[expect(unsafe_code, reason = "memory that the kernel shares")]
mod mapped;
mod namespace;
mod packet;
mod port;
mod run;
mod schedule;
mod sessions;
mod sink;
mod slices;
mod traffic;

pub use core::claim_core;
pub use forward::Forward;
pub use generator::Generator;
