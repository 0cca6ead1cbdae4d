//! `wgx` and other implementations: the interop matrix, and what each of them has to be able to do with `wgx`.

use anyhow::{Result, bail};
use tests::{
    Io, Lab,
    peer::{Cell, Pair, Program},
    scenario,
};

/// A peer that fails this often is broken, and each failure takes its time-outs.
const MAX_FAILURES: usize = 3;

/// A test of each function for each peer, on each rung.
macro_rules! with_every_peer {
    (@rung $module:ident, $program:expr, $rung:ident, $io:expr, $($name:ident)+) => {
        mod $rung {
            $(#[test] fn $name() {
                let name = concat!(stringify!($module), "::", stringify!($rung), "::", stringify!($name));
                super::super::with_peer(name, $program, |lab| super::super::$name(lab, $program, $io));
            })+
        }
    };
    ($($name:ident,)+) => {
        with_every_peer! { @peer wireguard_go, tests::peer::Program::WireguardGo, $($name)+ }
        with_every_peer! { @peer boringtun, tests::peer::Program::Boringtun, $($name)+ }
        with_every_peer! { @peer gotatun, tests::peer::Program::Gotatun, $($name)+ }
    };
    (@peer $module:ident, $program:expr, $($name:ident)+) => {
        mod $module {
            with_every_peer! { @rung $module, $program, af_xdp, tests::Io::AfXdp, $($name)+ }
            with_every_peer! { @rung $module, $program, udp, tests::Io::Udp, $($name)+ }
        }
    };
}

with_every_peer! {
    every_cell_of_the_matrix_works,
}

/// As `scenario_with_wgx`, for a test that takes a foreign program: one that is missing is a skip.
fn with_peer(name: &str, program: Program, test: impl FnOnce(&mut Lab) -> Result<()>) {
    match program.path() {
        Ok(_) => scenario::scenario_with_wgx(name, test),
        Err(error) => scenario::skip(name, &error.to_string()),
    }
}

fn every_cell_of_the_matrix_works(lab: &mut Lab, program: Program, io: Io) -> Result<()> {
    let version = program.version()?;
    let mut pair = Pair::start(lab, program, io)?;
    let mut failures = Vec::new();
    for cell in Cell::all() {
        if let Err(error) = cell.run(&mut pair, lab, &version) {
            failures.push(format!("{cell}: {error:#}"));
            if failures.len() >= MAX_FAILURES {
                break;
            }
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}
