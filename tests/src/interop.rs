//! The interop matrix: which implementation was seen to work with `wgx`, in which role and over what.

use std::fmt;

use anyhow::{Result, ensure};

use crate::{scenario, site::Family};

/// What the other implementation did in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sent the initiation.
    Initiator,
    /// It answered the initiation of `wgx`.
    Responder,
}

impl Role {
    /// Both.
    pub const BOTH: [Role; 2] = [Role::Initiator, Role::Responder];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        })
    }
}

/// Writes one green cell of the matrix to the test log, where `cargo xtask test` makes a table of them.
///
/// `peer` is the implementation, `version` its own, `rung` that of `wgx`.
pub fn record(
    peer: &str,
    version: &str,
    role: Role,
    outer: Family,
    inner: Family,
    psk: bool,
    rung: &str,
) -> Result<()> {
    scenario::log(&line(peer, version, role, outer, inner, psk, rung)?)
}

/// `interop: PEER VERSION | ROLE | OUTER | INNER | PSK | RUNG`.
fn line(
    peer: &str,
    version: &str,
    role: Role,
    outer: Family,
    inner: Family,
    psk: bool,
    rung: &str,
) -> Result<String> {
    let is_word = |word: &str| !word.is_empty() && !word.contains(['|', ' ', '\n']);
    ensure!([peer, version, rung].into_iter().all(is_word), "no words: {peer:?}, {version:?}, {rung:?}");
    let family = |family| if family == Family::V4 { "v4" } else { "v6" };
    let psk = if psk { "psk" } else { "none" };
    Ok(format!("interop: {peer} {version} | {role} | {} | {} | {psk} | {rung}", family(outer), family(inner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_of_fixed_order() {
        let cell = line("gotatun", "0.10.2", Role::Responder, Family::V6, Family::V4, false, "af-xdp");
        assert_eq!(cell.unwrap(), "interop: gotatun 0.10.2 | responder | v6 | v4 | none | af-xdp");
    }

    #[test]
    fn a_name_that_would_break_the_line_is_refused() {
        for name in ["", "a b", "a|b", "a\n"] {
            line(name, "1", Role::Initiator, Family::V4, Family::V4, true, "udp").unwrap_err();
        }
    }
}
