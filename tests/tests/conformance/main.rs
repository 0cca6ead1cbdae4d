//! Conformance of a gateway as a black box: a scripted client sends exactly the right and exactly the wrong bytes.
//!
//! The same tables run against `wgx` over AF_XDP, over the kernel's UDP sockets, and against the reference
//! implementation, which proves the tables. What is exercised in virtual time instead, because it takes minutes:
//! the ages of sessions (120, 165, 180 and 540 s), the end of retries after 90 s, cookies of 115 s.

mod data;
mod endpoint;
mod flood;
mod handshake;
mod initiator;
mod known;
mod load;
mod timers;

use tests::{
    Implementation, Io,
    scripted::{
        Case,
        cases::{self, Order},
    },
};

/// Makes a module of one test per table for a gateway.
macro_rules! on {
    ($gateway:ident = $implementation:path: $($name:ident = $table:path, $order:ident;)+) => {
        mod $gateway {
            $(#[test] fn $name() {
                let (gateway, name) = (stringify!($gateway), stringify!($name));
                super::run(gateway, name, $implementation, $table, super::Order::$order);
            })+
        }
    };
}

/// Makes a test of each table for each gateway.
macro_rules! on_every_gateway {
    ($($tables:tt)+) => {
        on! { af_xdp = super::AF_XDP: $($tables)+ }
        on! { udp_rung = super::UDP: $($tables)+ }
        on! { reference = super::REFERENCE: $($tables)+ }
    };
}

const AF_XDP: Implementation = Implementation::Wgx(Io::AfXdp);
const UDP: Implementation = Implementation::Wgx(Io::Udp);
const REFERENCE: Implementation = Implementation::WireguardGo;

on_every_gateway! {
    data_crosses_only_when_right = crate::data::CASES, OneByOne;
    endpoints_counters_and_headers_are_right = crate::endpoint::CASES, OneByOne;
    failures_known_from_peers_are_not_ours = crate::known::CASES, OneByOne;
    handshakes_are_answered_only_when_right = crate::handshake::CASES, OneByOne;
    handshakes_are_initiated_as_they_should = crate::initiator::CASES, OneByOne;
    load_is_met_with_cookies_and_limits = crate::load::CASES, OneByOne;
    timers_fire_when_due = crate::timers::CASES, AtOnce;
}

// The reference loses packets by the hundred: its sockets overflow.
on! { af_xdp_flooded = super::AF_XDP: garbage_harms_nobody = crate::flood::CASES, OneByOne; }
on! { udp_rung_flooded = super::UDP: garbage_harms_nobody = crate::flood::CASES, OneByOne; }

fn run(gateway: &str, table: &str, implementation: Implementation, cases: &[Case], order: Order) {
    let name = format!("{gateway}::{table}");
    let test = |lab: &mut tests::Lab| cases::check(lab, implementation, table, cases, order);
    match implementation {
        Implementation::Wgx(_) => tests::scenario_with_wgx(&name, test),
        Implementation::WireguardGo => tests::scenario(&name, test),
    }
}
