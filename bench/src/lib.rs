//! Load, measurement and plots for the demo, the tests in namespaces and the benchmarks.
#![deny(unsafe_code)]

pub mod aead;
pub mod chart;
pub mod load;
pub mod media;
pub mod path;
pub mod plot;
pub mod report;
pub mod search;
pub mod storm;
