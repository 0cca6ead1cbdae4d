//! One gateway: a device, and the least that a data plane has to do around it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use wireguard::{
    Admitted, AllowedIpAction, CurveWork, Device, DeviceChange, DropReason, Endpoint, InnerHeader,
    LocalAddress, MessageType, Now, Output, PeerChange, PeerId, PrivateKey, PublicKey, Session, SessionEvent,
    Time, UnixTime, message, padded_len,
};

const MTU: usize = 1420;
/// Virtual time starts here, so that nothing depends on starting at 0.
pub const START: Time = Time(1_000_000_000_000);
/// Unix time at [`START`].
const UNIX_START_SECS: u64 = 1_700_000_000;

/// Both clocks at a moment of virtual time.
pub fn now(time: Time) -> Now {
    let elapsed = time.saturating_since(START);
    let unix = UnixTime { secs: UNIX_START_SECS + elapsed.as_secs(), nanos: elapsed.subsec_nanos() };
    Now { monotonic: time, unix }
}

/// A datagram on its way out.
#[derive(Clone, Debug)]
pub struct Sent {
    pub to: SocketAddr,
    pub datagram: Vec<u8>,
    pub tos: u8,
}

/// An inner packet that was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub at: Time,
    pub packet: Vec<u8>,
}

/// A device with its data plane.
pub struct Node {
    pub device: Device,
    pub address: SocketAddr,
    pub inner_address: Ipv4Addr,
    sessions: BTreeMap<u32, Arc<Session>>,
    current: BTreeMap<PeerId, Arc<Session>>,
    pub endpoints: BTreeMap<PeerId, Endpoint>,
    pub outbox: Vec<Sent>,
    pub delivered: Vec<Delivered>,
    pub drops: Vec<DropReason>,
    /// Handshake messages that wait besides the one received: 512 are load.
    pub queued: usize,
    /// Curve work that is not done yet, if it is to wait at all.
    pub held_work: Option<Vec<CurveWork>>,
}

pub fn private_key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

/// A whole IPv4 packet of `len` bytes with a number in its payload.
pub fn packet(source: Ipv4Addr, destination: Ipv4Addr, len: usize, number: u64) -> Vec<u8> {
    let mut packet = vec![0; len.max(28)];
    let total_len = packet.len() as u16;
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&total_len.to_be_bytes());
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20..28].copy_from_slice(&number.to_be_bytes());
    packet
}

/// The number in the payload.
pub fn number_of(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[20..28].try_into().expect("eight bytes"))
}

impl Node {
    /// Node `number` with key, addresses and randomness of its own; up, without peers.
    pub fn new(number: u8) -> Self {
        let mut device = Device::new([number.wrapping_mul(37); 32]);
        device.set_private_key(Some(private_key(number)), now(START));
        device.set_up(true, now(START));
        Self {
            device,
            address: SocketAddr::from(([192, 0, 2, number], 51820)),
            inner_address: Ipv4Addr::new(10, 0, 0, number),
            sessions: BTreeMap::new(),
            current: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            outbox: Vec::new(),
            delivered: Vec::new(),
            drops: Vec::new(),
            queued: 0,
            held_work: None,
        }
    }

    pub fn public_key(&self) -> PublicKey {
        self.device.public_key().expect("the node has a key")
    }

    /// What another node must be told of this one: key and inner address, and where it is if `with_endpoint`.
    pub fn introduction(&self, with_endpoint: bool) -> PeerChange {
        PeerChange {
            endpoint: with_endpoint.then_some(self.address),
            allowed_ips: vec![(IpAddr::from(self.inner_address).into(), AllowedIpAction::Add)],
            ..PeerChange::new(self.public_key())
        }
    }

    pub fn apply(&mut self, change: PeerChange, time: Time) {
        let change = DeviceChange { peers: vec![change], ..DeviceChange::default() };
        self.device.apply(change, now(time)).expect("the change is good");
        self.drain(time);
    }

    pub fn peer(&self, public_key: &PublicKey) -> PeerId {
        self.device.peer_by_key(public_key).expect("the peer is known")
    }

    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub fn current_session(&self, peer: PeerId) -> Option<&Arc<Session>> {
        self.current.get(&peer)
    }

    /// What a worker does with a packet from the tunnel side.
    pub fn send(&mut self, packet: &[u8], time: Time) {
        let header = InnerHeader::parse(packet).expect("tests send whole packets");
        let peer = *self.device.allowed_ips().lookup(header.destination).expect("tests send to peers");
        let session = self.current.get(&peer).cloned();
        let padded_len = padded_len(packet.len(), MTU);
        match session.and_then(|session| Some((session.seal(packet, padded_len, time)?, session))) {
            Some((datagram, session)) => {
                session.activity().sent(time, datagram.len() as u64, true);
                self.outbox.push(Sent { to: self.endpoints[&peer].remote, datagram, tos: header.ecn });
                if session.activity().note() {
                    self.event(SessionEvent::Activity { peer }, time);
                }
                if session.wants_rekey_on_send(time) {
                    self.event(SessionEvent::RekeyOnSend { local_index: session.local_index() }, time);
                }
            }
            None => self.device.stage(peer, packet.to_vec(), now(time)),
        }
        self.drain(time);
    }

    /// What worker and control do with a datagram from the network side.
    pub fn receive(&mut self, datagram: &[u8], source: SocketAddr, time: Time) {
        let local = Some(LocalAddress { ip: self.address.ip(), interface_index: 2 });
        let source = Endpoint { remote: source, local };
        let result = match MessageType::classify(datagram) {
            Ok(MessageType::Transport) => self.receive_transport(datagram, source, time),
            _ => self.receive_handshake(datagram, source, time),
        };
        if let Err(reason) = result {
            self.drops.push(reason);
        }
        self.drain(time);
    }

    /// What the threads for handshakes and control do.
    fn receive_handshake(&mut self, datagram: &[u8], source: Endpoint, time: Time) -> Result<(), DropReason> {
        match self.device.admission().admit(datagram, source, self.queued, time)? {
            Admitted::Message(incoming) => self.device.receive(incoming, now(time))?,
            Admitted::Reply(datagram) => self.outbox.push(Sent { to: source.remote, datagram, tos: 0 }),
        }
        self.perform_work(time)
    }

    fn perform_work(&mut self, time: Time) -> Result<(), DropReason> {
        match &mut self.held_work {
            None => self.device.perform_work(now(time)),
            Some(held) => {
                held.extend(std::iter::from_fn(|| self.device.poll_work()));
                Ok(())
            }
        }
    }

    fn receive_transport(&mut self, datagram: &[u8], source: Endpoint, time: Time) -> Result<(), DropReason> {
        let local_index = u32::from_le_bytes(datagram[4..8].try_into().expect("four bytes"));
        let session = self.sessions.get(&local_index).cloned().ok_or(DropReason::UnknownIndex)?;
        let mut buffer = datagram.to_vec();
        let inner = session.open(&mut buffer, time)?;
        let peer = session.peer();
        session.activity().received(time, datagram.len() as u64, !inner.is_empty());
        if self.endpoints.get(&peer) != Some(&source) {
            self.event(SessionEvent::Roamed { local_index, endpoint: source }, time);
        }
        if session.confirm() {
            self.event(SessionEvent::Confirmed { local_index }, time);
        }
        if session.wants_rekey_on_receive(time) {
            self.event(SessionEvent::RekeyOnReceive { local_index }, time);
        }
        if session.activity().note() {
            self.event(SessionEvent::Activity { peer }, time);
        }
        if let Some(header) = InnerHeader::parse(&buffer[inner.clone()])
            && self.device.allowed_ips().lookup(header.source) == Some(&peer)
        {
            let packet = buffer[inner.start..inner.start + header.len].to_vec();
            self.delivered.push(Delivered { at: time, packet });
        }
        Ok(())
    }

    fn event(&mut self, event: SessionEvent, time: Time) {
        self.device.session_event(event, now(time));
        self.drain(time);
    }

    pub fn handle_timeout(&mut self, time: Time) {
        self.device.handle_timeout(now(time));
        self.drain(time);
    }

    /// Does what the device asks for, in order, and checks that the order makes sense.
    pub fn drain(&mut self, time: Time) {
        // What it comes to is seen on the wire.
        let _ = self.perform_work(time);
        while let Some(output) = self.device.poll_output() {
            match output {
                Output::Transmit { peer, to, datagram, tos } => {
                    assert_eq!(self.endpoints.get(&peer), Some(&to), "the endpoint was announced before");
                    self.outbox.push(Sent { to: to.remote, datagram, tos });
                }
                Output::SessionAdded(session) => {
                    let previous = self.sessions.insert(session.local_index(), session);
                    assert!(previous.is_none(), "a local index is used once at a time");
                }
                Output::SessionRemoved { local_index } => {
                    assert!(self.sessions.remove(&local_index).is_some(), "only known sessions are removed");
                }
                Output::CurrentSession { peer, session } => {
                    match session {
                        Some(session) => {
                            assert!(self.sessions.contains_key(&session.local_index()));
                            self.current.insert(peer, session)
                        }
                        None => self.current.remove(&peer),
                    };
                }
                Output::PeerRemoved { peer } => {
                    self.current.remove(&peer);
                    self.endpoints.remove(&peer);
                    assert!(self.sessions.values().all(|session| session.peer() != peer));
                }
                Output::EndpointChanged { peer, endpoint } => {
                    match endpoint {
                        Some(endpoint) => self.endpoints.insert(peer, endpoint),
                        None => self.endpoints.remove(&peer),
                    };
                }
                Output::PeerAdded { .. } | Output::AllowedIpsChanged { .. } => {}
            }
        }
    }
}

/// The message type of a datagram that this crate made.
pub fn kind(datagram: &[u8]) -> MessageType {
    MessageType::classify(datagram).expect("devices send whole messages")
}

pub fn is_keepalive(datagram: &[u8]) -> bool {
    kind(datagram) == MessageType::Transport && datagram.len() == message::TRANSPORT_LEN_MIN
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
