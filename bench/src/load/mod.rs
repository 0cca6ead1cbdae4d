//! Load on a gateway: trials at steady rates over AF_XDP, and what came of them.

mod trial;

pub use trial::{Direction, Outcome, Sizes, Trial};
