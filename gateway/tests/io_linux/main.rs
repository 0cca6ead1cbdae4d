//! TUN devices, UDP and AF_XDP sockets in network namespaces of their own. Needs root: says `skipped` otherwise.

mod af_xdp;
mod frames;
mod huge_pages;
mod namespace;
mod packet;
mod receive;
#[path = "../xdp_steering/report.rs"]
#[allow(dead_code, reason = "measurements are noted by other tests")]
mod report;
mod tun;
mod udp;
