//! Text to [`Config`] (parsed, flags over file), and [`Config`] to [`Plan`] (checked against the machine).
//!
//! A plan that exists can be carried out, as far as that can be known without touching anything: nothing is
//! created, attached or opened here.

mod error;
mod file;
mod limits;
mod options;
mod plan;

pub use error::ConfigError;
pub use file::{CONFIG_LEN_MAX, Config};
pub use limits::{
    AEAD_AUTO, FRAME_COUNT_RANGE, FRAME_HEADROOM, MTU_RANGE, aead_names, frame_mtu_max, is_tunnel_name,
};
pub use options::{IoMode, Options};
pub use plan::{Link, Plan};
