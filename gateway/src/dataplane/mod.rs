//! The data plane: sealed datagrams in, plain packets out, and back, in batches on pinned workers.
//!
//! Nothing here allocates, logs, waits for a lock or reads a clock once per packet; what needs any of these
//! goes to the control thread through the [`mailbox`].

pub mod classify;
pub mod counters;
pub mod encap;
pub mod engine;
pub mod fib;
mod heard;
mod inbound;
pub mod inner;
pub mod mailbox;
pub mod network;
mod outbound;
pub mod publish;
pub mod session_table;
pub mod tables;
pub mod unreachable;
pub mod worker;
