//! TUN devices, UDP and AF_XDP sockets in network namespaces of their own. Needs root: says `skipped` otherwise.

mod af_xdp;
mod frames;
mod namespace;
mod packet;
mod receive;
mod tun;
mod udp;
