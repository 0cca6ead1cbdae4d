//! The control thread.

pub mod config_file;
pub mod netlink;
pub mod readable;
pub mod settings;
pub mod uapi;
