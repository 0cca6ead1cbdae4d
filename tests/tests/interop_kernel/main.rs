//! The kernel's WireGuard as peer of `wgx`, in a virtual machine: the kernel is the reference.
//!
//! A test is a boot of the machine, four seconds, so each checks several promises one after the other.

mod headers;
mod matrix;
mod moves;
mod paths;

use anyhow::Result;
use tests::{
    Io, Lab,
    guest::{self, Pair},
    scenario, scenario_with_wgx,
};

/// Makes a test of each function for each rung of `wgx`.
macro_rules! on_both_rungs {
    ($($room:ident::$name:ident,)+) => {
        mod af_xdp {
            $(#[test] fn $name() {
                super::with_kernel(concat!("af_xdp::", stringify!($name)), super::Io::AfXdp, super::$room::$name);
            })+
        }
        mod udp_rung {
            $(#[test] fn $name() {
                super::with_kernel(concat!("udp_rung::", stringify!($name)), super::Io::Udp, super::$room::$name);
            })+
        }
    };
}

on_both_rungs! {
    matrix::every_cell_of_the_matrix_is_green,
    moves::peers_that_move_and_change_keys_are_followed,
    paths::bad_paths_lose_but_never_repeat,
    headers::outer_headers_are_those_of_the_kernel,
}

fn with_kernel(name: &str, io: Io, test: fn(&mut Lab, &mut Pair, Io) -> Result<()>) {
    match guest::obstacle() {
        Some(why) => scenario::skip(name, &why),
        None => scenario_with_wgx(name, |lab| {
            let mut pair = Pair::build(lab, io)?;
            test(lab, &mut pair, io)
        }),
    }
}
