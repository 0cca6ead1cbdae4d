//! The control thread.

pub mod netlink;
pub mod readable;
pub mod settings;
pub mod uapi;
