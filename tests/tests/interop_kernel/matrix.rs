//! Every combination of roles, families and keys: handshake, pings up to the MTU, and every byte accounted for.

use anyhow::{Context, Result, bail, ensure};
use tests::{
    Io, Lab,
    guest::{Cell, Pair, Transfer},
    interop::{self, Role},
    site::Family,
};

/// Sizes of an initiation and of a response.
const INITIATION_LEN: u64 = 148;
const RESPONSE_LEN: u64 = 92;
/// The tunnel's MTU on both sides; no multiple of 16, so padding has to be capped.
pub const MTU: u64 = 1420;

pub fn every_cell_of_the_matrix_is_green(lab: &mut Lab, pair: &mut Pair, io: Io) -> Result<()> {
    let mut failures = Vec::new();
    for cell in Cell::all() {
        if let Err(error) = green(lab, pair, cell) {
            failures.push(format!("{cell}: {error:#}"));
            continue;
        }
        let Cell { role, outer, inner, psk } = cell;
        interop::record("kernel", pair.guest.release(), role, outer, inner, psk, &io.to_string())?;
    }
    ensure!(failures.is_empty(), "{} cells failed:\n{}", failures.len(), failures.join("\n"));
    let status = pair.status()?;
    ensure!((status.fast() > 0) == (io == Io::AfXdp), "the wrong way was taken: {:?}", status.verdicts());
    Ok(())
}

/// Handshake in the wanted role, pings both ways up to the MTU, and every byte accounted for.
fn green(lab: &Lab, pair: &mut Pair, cell: Cell) -> Result<()> {
    pair.meet(lab, cell)?;
    let Cell { role, inner, .. } = cell;
    // 84 bytes in both families.
    let small = format!("-c 1 -s {}", 84 - headers(inner));
    // One by one: `ping -c 10` waits for the last reply no longer than two round trips took, and whatever it sends more
    // would have to be counted.
    for number in 1..=10 {
        match role {
            Role::Initiator => pair.ping_from_kernel(inner, &small),
            Role::Responder => pair.ping_from_server(inner, &small),
        }
        .with_context(|| format!("ping {number} of the first ten"))?;
    }
    let expected = handshake_and(role, 10 * data_len(84, MTU));
    let counted = pair.agreed_transfer()?;
    ensure!(counted == expected, "after ten pings the kernel counts {counted:?}, not {expected:?}");

    let mut data = 10 * data_len(84, MTU);
    for len in [headers(inner) + 1, 97, MTU - 1, MTU] {
        let one = format!("-c 1 -s {}", len - headers(inner));
        pair.ping_from_kernel(inner, &one).with_context(|| format!("{len} bytes from the kernel"))?;
        pair.ping_from_server(inner, &one).with_context(|| format!("{len} bytes from the server"))?;
        data += 2 * data_len(len, MTU);
    }
    let expected = handshake_and(role, data);
    let counted = pair.agreed_transfer()?;
    ensure!(counted == expected, "in the end the kernel counts {counted:?}, not {expected:?}");
    match pair.handshakes()? {
        (0, _) | (_, 0) => bail!("a handshake has no time"),
        (kernel, wgx) => ensure!(kernel.abs_diff(wgx) < 60, "handshakes at {kernel} and {wgx}"),
    }
    Ok(())
}

/// What the kernel counts after one handshake in `role` and `data` bytes of data messages each way.
fn handshake_and(role: Role, data: u64) -> Transfer {
    let initiator = Transfer { rx: RESPONSE_LEN + data, tx: INITIATION_LEN + data };
    match role {
        Role::Initiator => initiator,
        Role::Responder => initiator.mirrored(),
    }
}

/// The UDP payload that carries an IP packet of `len` bytes: padded to 16, but not beyond the MTU.
pub fn data_len(len: u64, mtu: u64) -> u64 {
    len.next_multiple_of(16).min(mtu) + 32
}

/// IP and ICMP headers of an echo request.
pub fn headers(family: Family) -> u64 {
    match family {
        Family::V4 => 28,
        Family::V6 => 48,
    }
}
