//! Devices that talk to each other in virtual time, with an eavesdropper on the wire.

mod configuration;
mod cookies;
mod faults;
mod handshake;
mod network;
mod node;
mod roaming;
mod rotation;
mod timers;
mod under_load;
mod work;
