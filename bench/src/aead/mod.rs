//! What sealing and opening a packet costs: the backends of the crate `aead` beside other libraries, in one process and
//! in turns, so that whatever else the machine does hits all alike.

mod constant_time;
mod goal;
mod implementation;
mod ipsec_mb;
mod load;
mod report;
mod rounds;
mod welch;

pub use constant_time::{Leak, LeakReport, constant_time};
pub use goal::{Goal, goals};
pub use report::{Cell, Measurements, measure};
pub use rounds::Figure;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Encrypt and write the tag.
    Seal,
    /// Verify the tag and decrypt.
    Open,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Seal, Self::Open];

    /// The verb.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Open => "open",
        }
    }
}
