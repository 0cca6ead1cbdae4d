//! Load on a gateway: trials at steady rates, made and taken down inside the kernel, and what came of them.
//!
//! ```text
//!             ┌──────────── wgx-load, one thread on one core ────────────┐
//!    frames ◄─┤ namespace of the clients        namespace of the server  ├─► frames
//!             └──────────────────────────────────────────────────────────┘
//!  veth ── uplink │ gateway under test, on another core │ downlink ── veth
//! ```
//!
//! By hand: `cargo xtask bench trial` brings up namespaces and gateway, runs some trials and prints them; see its
//! `--help`. As fast as possible, 1228 bytes, decrypt, then 50,000 packets/s the other way for a hundred clients, then the
//! ceiling:
//!
//! ```console
//! $ cargo xtask bench trial
//! $ cargo xtask bench trial encrypt --rate 50000 --clients 100 --seconds 2
//! $ cargo xtask bench trial --gateway forward --size 200
//! ```
//!
//! From a program: [`Load::start`] runs `wgx-load`, which takes a [`Setup`] and then [`Trial`]s as lines of JSON and
//! answers each by an [`Answer`]. The generator does the handshakes of all clients itself, renews sessions between trials
//! before they are due, and warms the path up before each trial, so that any gateway sees the same packets and needs
//! nothing but its peers configured.
//!
//! What the figures mean, and what they do not:
//!
//! - *Open loop.* Packet `i` is due at `start + i / rate`, whatever became of the ones before it, and latency counts from
//!   then. A generator that was held up sends late but not less; [`Outcome::void`] says when it was held up too much.
//! - *Sealed before.* What clients send is sealed before the trial, at one fresh counter each; during it a packet costs the
//!   generator a copy. That bounds a trial's packets: 3 GiB of sealed datagrams.
//! - *Inside the kernel* ([`Driver::LiveFrames`]): an XDP program waits until a frame is due, copies it and redirects it
//!   (`BPF_PROG_TEST_RUN` with `BPF_F_TEST_XDP_LIVE_FRAMES`), and a classifier at the other end notes when each packet came
//!   and frees it. One core sends more than a gateway on another takes, and what the sink costs whoever sends to it is a
//!   soft interrupt and no copy. As fast as possible is then simply that: bursts of 64, some 1.5 million packets/s.
//! - *Over AF_XDP* ([`Driver::AfXdp`]): sockets on both interfaces, for several queues. A burst of 32 is sent when the driver
//!   has taken the last one, and the intended time of a packet sent as fast as possible is that of its burst. Arrivals
//!   are stamped once per received burst of at most 64. Each packet costs the generator, and in the sink whoever sends to
//!   it, two copies and a buffer.
//! - *Arrivals* are logged; counts, order, jitter and latencies are computed from the log after the trial. Plaintext is
//!   matched by the sequence number in it; of 64 packets the contents of one are compared. Sealed packets are counted by
//!   client and counter; an even sample of up to 64 MiB, over AF_XDP 128 (all of them, at low rates) is kept, opened and compared after the
//!   trial, and gives the latencies and the jitter.
//! - *Others on the machine*: the outcome of a trial that [`is_watched`](Trial::is_watched) says which packets were held up because a thread of neither
//!   gateway nor generator had one of their processors for 20 us or more, or because one stood still for 100 us or more, by
//!   whom, and the latency of all others ([`HeldUp`]).
//! - *Loss in the sink* is told apart: packets that reached the generator and found no room are `sink_drops`, and make the
//!   trial void.
//! - On a veth the receiving side's NAPI runs on the CPU that transmits: the generator's core also pays for the gateway's
//!   XDP program, and the gateway's for the generator's sink. Figures hold for comparison on one machine, not for a NIC.
//! - *Other load on the machine* shows in every figure. Both programs take the highest niceness on their core, which with
//!   `sched_autogroup_enabled` counts within their session only; `cargo xtask bench trial` puts its session first.
//! - IPv4 inside and outside, UDP checksums absent.
//!
//! `wgx-forward` is the ceiling: the gateway's own AF_XDP code, forwarding in place on one UMEM without cryptography. A
//! [`Setup`] without a tunnel sends it plain packets as long as sealed ones would be.

#[cfg(feature = "af-xdp")]
mod engine;
mod process;
mod setup;
mod trial;

#[cfg(feature = "af-xdp")]
pub use engine::{Forward, Generator, claim_core};
pub use process::{Answer, Load, Ready};
pub use setup::{CLIENTS_MAX, Driver, FIRST_PORT, INNER_PORT, KeySeed, Mac, Setup, Side, Tunnel, Watched};
pub use trial::{Direction, HeldUp, LATE_US, Outcome, SEND_DELAY_MAX_US, Sizes, Trial};
