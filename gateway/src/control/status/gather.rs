//! The status of this moment, from all who count.

use std::collections::BTreeMap;

use gateway_ebpf::Reason;
use wireguard::{DropReason, HandshakeCounters, PeerStatus};

use super::{InterfaceStatus, LinkStatus, PeerReport, Status, WorkerStatus};
use crate::control::{Control, TUNNEL_MTU_DEFAULT};
use crate::xdp::Steering;

impl Control {
    /// The status of this moment.
    pub(in crate::control) fn status(&self) -> Status {
        let sources = &self.status;
        Status {
            name: self.name.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_secs: self.clock.monotonic().saturating_since(self.started).as_secs(),
            rung: sources.rung.clone(),
            aead: sources.aead.clone(),
            up: self.device.is_up(),
            mtu: self.tunnel.map_or(TUNNEL_MTU_DEFAULT, |tunnel| tunnel.mtu),
            listen_port: self.sockets.listen_port(),
            public_key: self.device.public_key().map(|key| key.to_string()),
            plain_rules: self.network.plain_rules,
            unsteered_allowed_ips: self.steering.as_ref().map_or(0, Steering::unsteered_count),
            interfaces: self.interfaces(),
            links: sources
                .links
                .iter()
                .map(|(info, read)| LinkStatus { info: info.clone(), statistics: read() })
                .collect(),
            workers: self.workers(),
            sockets: sources.sockets.as_ref().map(|read| read()),
            tunnel: sources.tunnel.as_ref().map(|read| read()),
            peers: self.device.peers().map(|peer| self.peer_report(&peer)).collect(),
            under_load: self.device.admission().is_under_load(self.clock.monotonic()),
            handshakes_waiting: self.mailbox.handshakes().len(),
            handshakes: handshakes(&self.device.counters(), self.transmit_errors),
        }
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        // Without counters the rest is still worth showing.
        let counters: BTreeMap<u32, [u64; Reason::COUNT]> = self
            .steering
            .as_ref()
            .and_then(|steering| steering.counters().ok())
            .unwrap_or_default()
            .into_iter()
            .collect();
        let counts = |index| -> BTreeMap<String, u64> {
            let by_reason = counters.get(index).into_iter().flatten().zip(Reason::ALL);
            by_reason
                .filter(|(count, _)| **count != 0)
                .map(|(count, reason)| (reason.name().to_owned(), *count))
                .collect()
        };
        let interfaces = self.status.interfaces.iter();
        interfaces.map(|(index, info)| InterfaceStatus { info: info.clone(), xdp: counts(index) }).collect()
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let is_held = |cpu| self.status.pm_qos_held.as_ref().is_some_and(|is_held| is_held(cpu));
        let workers = self.status.workers.iter();
        workers
            .map(|(info, counters)| {
                let counts = counters.snapshot();
                WorkerStatus {
                    info: info.clone(),
                    batches: counts.batches,
                    idle_waits: counts.idle_waits,
                    pm_qos_held: info.cpu.is_some_and(is_held),
                    verdicts: counts
                        .verdicts
                        .into_iter()
                        .map(|(name, count)| (name.to_owned(), count))
                        .collect(),
                }
            })
            .collect()
    }

    fn peer_report(&self, peer: &PeerStatus) -> PeerReport {
        PeerReport {
            public_key: peer.public_key.to_string(),
            endpoint: peer.endpoint.map(|endpoint| endpoint.remote.to_string()),
            path: if self.publisher.is_fast(peer.id) { "fast" } else { "kernel" }.to_owned(),
            latest_handshake: peer.last_handshake.map(|time| time.secs),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            allowed_ip_count: peer.allowed_ips.len(),
        }
    }
}

fn handshakes(counters: &HandshakeCounters, transmit_errors: u64) -> BTreeMap<String, u64> {
    let named = [
        ("initiations_sent", counters.initiations_sent),
        ("responses_sent", counters.responses_sent),
        ("initiations_received", counters.initiations_received),
        ("responses_received", counters.responses_received),
        ("cookies_received", counters.cookies_received),
        ("cookies_sent", counters.cookies_sent),
        ("handshakes_completed", counters.handshakes_completed),
        ("handshakes_given_up", counters.handshakes_given_up),
        ("keepalives_sent", counters.keepalives_sent),
        ("staged_dropped", counters.staged_dropped),
        ("stage_refused", counters.stage_refused),
        ("transmit_errors", transmit_errors),
    ];
    let dropped = DropReason::ALL.map(|reason| (drop_name(reason), counters.dropped(reason)));
    let named = named.map(|(name, count)| (name.to_owned(), count));
    named.into_iter().chain(dropped).filter(|(_, count)| *count != 0).collect()
}

/// `DropReason::InvalidMac1` is `drop_invalid_mac1`.
fn drop_name(reason: DropReason) -> String {
    let mut name = "drop".to_owned();
    for character in format!("{reason:?}").chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_reasons_are_named_in_snake_case() {
        assert_eq!(drop_name(DropReason::InvalidMac1), "drop_invalid_mac1");
    }

    #[test]
    fn only_what_happened_is_told() {
        let mut counters = HandshakeCounters { initiations_sent: 2, ..HandshakeCounters::default() };
        counters.dropped[DropReason::UnknownPeer as usize] = 1;
        let expected = [("drop_unknown_peer".to_owned(), 1), ("initiations_sent".to_owned(), 2)];
        assert_eq!(handshakes(&counters, 0), expected.into());
    }
}
