//! What goes over the wire between the gateway and its peer: recorded, and added up in advance.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use crate::{
    Lab, Namespace, Process, Site,
    interop::Role,
    pcap,
    peer::{Program, State, program::padded_len},
    wait_until,
};

const INITIATION_LEN: usize = 148;
const RESPONSE_LEN: usize = 92;
/// What a data message has beside the padded packet; also the length of a keepalive.
const DATA_OVERHEAD: usize = 32;

/// The type of a WireGuard message.
pub fn message_type(message: &[u8]) -> Option<u8> {
    matches!(message, [1..=4, 0, 0, 0, ..]).then(|| message[0])
}

/// The inner packets of one session, by length, and who began it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// What the peer was in the handshake.
    pub role: Role,
    /// The tunnel's MTU.
    pub mtu: usize,
    /// Lengths of the packets the gateway sent to the peer.
    pub to_peer: Vec<usize>,
    /// Lengths of the packets the peer sent to the gateway.
    pub from_peer: Vec<usize>,
}

impl Traffic {
    /// None yet.
    pub fn new(role: Role, mtu: usize) -> Self {
        Self { role, mtu, to_peer: Vec::new(), from_peer: Vec::new() }
    }

    /// Adds a packet of this length in each direction.
    pub fn add_both(&mut self, inner_len: usize) {
        self.to_peer.push(inner_len);
        self.from_peer.push(inner_len);
    }

    /// Bytes of UDP payload the gateway received and sent, but for keepalives.
    pub fn at_gateway(&self, program: Program) -> (usize, usize) {
        let (rx, tx) = match self.role {
            Role::Initiator => (INITIATION_LEN, RESPONSE_LEN),
            Role::Responder => (RESPONSE_LEN, INITIATION_LEN),
        };
        let data = |lens: &[usize], padded: &dyn Fn(usize) -> usize| -> usize {
            lens.iter().map(|len| DATA_OVERHEAD + padded(*len)).sum()
        };
        (
            rx + data(&self.from_peer, &|len| program.padded_len(len, self.mtu)),
            tx + data(&self.to_peer, &|len| padded_len(len, self.mtu)),
        )
    }

    /// The same as the peer counts it: only wireguard-go counts what is on the wire.
    pub fn at_peer(&self, program: Program) -> (usize, usize) {
        let (gateway_rx, gateway_tx) = self.at_gateway(program);
        match program {
            Program::WireguardGo => (gateway_tx, gateway_rx),
            // What it received counts without the messages' headers and tags.
            Program::Gotatun => (gateway_tx - DATA_OVERHEAD * self.to_peer.len(), gateway_rx),
            // Inner packets only.
            Program::Boringtun => (self.to_peer.iter().sum(), self.from_peer.iter().sum()),
        }
    }

    /// What does not fit about both sides' counters. Keepalives may come on top: a few, and none from nowhere.
    pub fn complaint(&self, program: Program, gateway: &State, peer: &State) -> Option<String> {
        let (rx, tx) = self.at_gateway(program);
        let (peer_rx, peer_tx) = self.at_peer(program);
        let checks = [
            ("gateway rx", gateway.rx_bytes, rx),
            ("gateway tx", gateway.tx_bytes, tx),
            ("peer rx", peer.rx_bytes, peer_rx),
            ("peer tx", peer.tx_bytes, peer_tx),
        ];
        let wrong: Vec<_> = checks
            .iter()
            .filter(|(_, counted, expected)| !is_but_for_keepalives(*counted, *expected))
            .map(|(what, counted, expected)| format!("{what} is {counted}, not {expected}"))
            .collect();
        // On the same wire with the same rule: both saw the same, with keepalives.
        let mirrored = program != Program::WireguardGo
            || (gateway.rx_bytes == peer.tx_bytes && gateway.tx_bytes == peer.rx_bytes);
        match (wrong.is_empty(), mirrored) {
            (true, true) => None,
            (true, false) => Some(format!("not the same on both sides: {gateway:?}, {peer:?}")),
            _ => Some(wrong.join(", ")),
        }
    }
}

/// Two: the confirmation of a handshake, and one after ten quiet seconds on a busy machine.
fn is_but_for_keepalives(counted: u64, expected: usize) -> bool {
    (0..=2).any(|keepalives| counted == (expected + keepalives * DATA_OVERHEAD) as u64)
}

/// tcpdump on one interface.
#[derive(Debug)]
pub struct Recorder {
    process: Process,
    file: PathBuf,
}

impl Recorder {
    /// Records what the peer sends, at the switch: what XDP takes away at the gateway is not seen there.
    pub fn from_peer(lab: &Lab, site: &Site) -> Result<Self> {
        Self::start(lab, &site.wan, "to-client1", "in", "udp")
    }

    /// Records what the peer is sent.
    pub fn to_peer(lab: &Lab, site: &Site) -> Result<Self> {
        Self::start(lab, &site.wan, "to-client1", "out", "udp")
    }

    /// Begins to record what `filter` (tcpdump's) lets through, in `direction` (`in` or `out`, as seen there).
    pub fn start(
        lab: &Lab,
        namespace: &Namespace,
        interface: &str,
        direction: &str,
        filter: &str,
    ) -> Result<Self> {
        let label = format!("tcpdump-{interface}-{direction}");
        let file = lab.folder().join(&label).with_extension("pcap");
        let mut command = namespace.command("tcpdump");
        command.args(["-Z", "root", "-U", "--immediate-mode", "-n", "-i", interface, "-Q", direction, "-w"]);
        let mut process = lab.spawn(&label, command.arg(&file).arg(filter))?;
        wait_until("tcpdump listens", Duration::from_secs(10), || {
            process.check_running()?;
            Ok(process.output().contains("listening on"))
        })?;
        Ok(Self { process, file })
    }

    /// The frames so far.
    pub fn frames(&self) -> Result<Vec<Vec<u8>>> {
        let capture = fs::read(&self.file).with_context(|| format!("{}", self.file.display()))?;
        Ok(pcap::frames(&capture).map(<[u8]>::to_vec).collect())
    }

    /// The WireGuard messages so far.
    pub fn messages(&self) -> Result<Vec<Vec<u8>>> {
        let capture = fs::read(&self.file).with_context(|| format!("{}", self.file.display()))?;
        let payloads = pcap::udp_payloads(&capture);
        Ok(payloads.into_iter().filter(|payload| message_type(payload).is_some()).collect())
    }

    /// Waits until `enough` says that all that matters was recorded, and gives the messages.
    pub fn wait_for(
        &mut self,
        what: &str,
        mut enough: impl FnMut(&[Vec<u8>]) -> bool,
    ) -> Result<Vec<Vec<u8>>> {
        wait_until(what, Duration::from_secs(30), || {
            self.process.check_running()?;
            Ok(enough(&self.messages()?))
        })?;
        self.messages()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten_pings() -> Traffic {
        let mut traffic = Traffic::new(Role::Responder, 1420);
        (0..10).for_each(|_| traffic.add_both(84));
        traffic
    }

    #[test]
    fn ten_pings_count_as_the_kernel_counts_them() {
        // The figures of the kernel's selftests/wireguard/netns.sh.
        assert_eq!(ten_pings().at_gateway(Program::WireguardGo), (1372, 1428));
    }

    #[test]
    fn a_missing_byte_or_a_flood_of_keepalives_is_a_complaint() {
        let complaint = |rx: u64, tx: u64| {
            let gateway = State { rx_bytes: rx, tx_bytes: tx, ..State::default() };
            let peer = State { rx_bytes: tx, tx_bytes: rx, ..State::default() };
            ten_pings().complaint(Program::WireguardGo, &gateway, &peer)
        };
        assert_eq!(complaint(1372, 1428), None);
        assert_eq!(complaint(1372, 1428 + 32), None);
        assert!(complaint(1371, 1428).is_some());
        assert!(complaint(1372, 1428 + 3 * 32).is_some());
    }
}
