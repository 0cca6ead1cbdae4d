//! One cell of the interop matrix: a fresh handshake in one role, over one pair of families, with traffic.

use std::{fmt, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    Io, Lab,
    interop::{self, Role},
    peer::{Connection, Pair, Traffic, echo::header_len, payload_lens},
    site::Family,
    wait_until,
};

/// The tunnel's MTU.
const MTU: usize = 1420;
/// The ICMP payload of `ping`.
const PING_PAYLOAD_LEN: usize = 56;

/// One cell; the peer's program and the rung are those of the [`Pair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The handshake.
    pub connection: Connection,
    /// The family inside the tunnel.
    pub inner: Family,
}

impl Cell {
    /// The sixteen of them.
    pub fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for outer in Family::BOTH {
            for inner in Family::BOTH {
                for role in Role::BOTH {
                    for psk in [false, true] {
                        cells.push(Self { connection: Connection { role, outer, psk }, inner });
                    }
                }
            }
        }
        cells
    }

    /// Runs it and, if all is as it should be, records it under the version of the peer's program.
    pub fn run(self, pair: &mut Pair, lab: &Lab, version: &str) -> Result<()> {
        let Connection { role, outer, psk } = self.connection;
        let program = pair.remote.program;
        pair.remote.process().check_running()?;
        pair.connect(lab, self.connection)?;

        let mut traffic = Traffic::new(role, MTU);
        // The responder had no endpoint: a session shows who initiated.
        pair.first_ping(role, self.inner)?;
        // ICMP's header is as long as UDP's.
        traffic.add_both(PING_PAYLOAD_LEN + header_len(self.inner));
        self.exchange(pair, &mut traffic)?;
        check_states(pair, self.connection, &traffic)?;
        interop::record(program.name(), version, role, outer, self.inner, psk, &pair.io.to_string())
    }

    /// Datagrams of all sizes, which take the fast path where there is one.
    fn exchange(self, pair: &Pair, traffic: &mut Traffic) -> Result<()> {
        let echo = pair.echo(self.inner)?;
        let mut exchange = |lens: &[usize]| {
            for len in lens {
                traffic.add_both(len + header_len(self.inner));
            }
            echo.exchange(lens)
        };
        if pair.io == Io::AfXdp {
            wait_until("packets take the fast path both ways", Duration::from_secs(10), || {
                let before = pair.gateway.status()?;
                exchange(&[1])?;
                Ok(pair.gateway.status()?.since(&before).fast() >= 2)
            })?;
        }
        let before = pair.gateway.status()?;
        let lens = payload_lens(self.inner, MTU);
        exchange(&lens)?;
        // A worker counts a batch after it has sent it.
        wait_until("all packets are counted", Duration::from_secs(20), || {
            let delta = pair.gateway.status()?.since(&before);
            Ok(delta.fast() + delta.slow() >= 2 * lens.len() as u64)
        })?;
        let delta = pair.gateway.status()?.since(&before);
        let (fast, slow) = (delta.fast(), delta.slow());
        if pair.io == Io::AfXdp {
            ensure!(
                fast >= 2 * lens.len() as u64 && slow * 20 <= fast,
                "not on the fast path: {:?}",
                delta.verdicts()
            );
        } else {
            ensure!(fast == 0 && slow >= 2 * lens.len() as u64, "{:?}", delta.verdicts());
        }
        Ok(())
    }
}

/// Both sides had a handshake, know where the other is, and counted what was sent.
fn check_states(pair: &Pair, connection: Connection, traffic: &Traffic) -> Result<()> {
    let program = pair.remote.program;
    let mut seen = String::new();
    wait_until("both sides' counters are right", Duration::from_secs(20), || {
        let complaint = traffic.complaint(program, &pair.gateway_state()?, &pair.remote.state()?);
        seen = complaint.unwrap_or_default();
        Ok(seen.is_empty())
    })
    .with_context(|| seen.clone())?;

    let (gateway, remote) = (pair.gateway_state()?, pair.remote.state()?);
    ensure!(gateway.has_handshake && remote.has_handshake, "no handshake: {gateway:?}, {remote:?}");
    let (at_gateway, at_remote) =
        (pair.remote.endpoint(connection.outer), pair.gateway.endpoint(connection.outer));
    ensure!(gateway.endpoint == Some(at_gateway), "the gateway has {:?}", gateway.endpoint);
    ensure!(remote.endpoint == Some(at_remote), "the peer has {:?}", remote.endpoint);
    Ok(())
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Connection { role, outer, psk } = self.connection;
        let psk = if psk { "with" } else { "without" };
        write!(f, "peer is {role}, {:?} in {outer:?}, {psk} preshared key", self.inner)
    }
}
