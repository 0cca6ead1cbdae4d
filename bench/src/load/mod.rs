//! Load on a gateway: trials at steady rates over AF_XDP, and what came of them.

#[cfg(feature = "af-xdp")]
mod engine;
mod process;
mod setup;
mod trial;

#[cfg(feature = "af-xdp")]
pub use engine::{Forward, Generator};
pub use process::{Answer, Load, Ready};
pub use setup::{CLIENTS_MAX, FIRST_PORT, INNER_PORT, KeySeed, Mac, Setup, Side, Tunnel};
pub use trial::{Direction, Outcome, SEND_DELAY_MAX_US, Sizes, Trial};
