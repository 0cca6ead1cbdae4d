//! Handshake messages: noise, near misses and one that is genuine, with and without load.

use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use wireguard::{
    Admitted, AllowedIpAction, Device, DeviceChange, DropReason, Endpoint, MessageType, Now, Output,
    PeerChange, PrivateKey, PublicKey, Time, UnixTime,
    constants::HANDSHAKE_QUEUE_MAX,
    cookie::{MAC_LEN, ReceiverKeys},
    message::{COOKIE_REPLY_LEN, HANDSHAKE_INITIATION_LEN, HANDSHAKE_RESPONSE_LEN},
};

use crate::input::Input;

const GATEWAY_KEY: PrivateKey = PrivateKey::from_bytes([1; 32]);
const PEER_KEY: PrivateKey = PrivateKey::from_bytes([2; 32]);
const INNER: [u8; 28] =
    [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];

/// What a stranger may know and use: public keys, and messages that were on the wire.
struct Wire {
    gateway_keys: ReceiverKeys,
    /// An initiation of the peer.
    initiation: Vec<u8>,
}

static WIRE: LazyLock<Wire> = LazyLock::new(|| {
    let mut peer = device(&PEER_KEY, &GATEWAY_KEY);
    Wire {
        gateway_keys: ReceiverKeys::new(&GATEWAY_KEY.public_key()),
        initiation: initiate(&mut peer, now(Time(0))),
    }
});

fn now(monotonic: Time) -> Now {
    let unix = UnixTime { secs: 1_700_000_000 + monotonic.0 / 1_000_000_000, nanos: 0 };
    Now { monotonic, unix }
}

fn device(own: &PrivateKey, other: &PrivateKey) -> Device {
    let mut device = Device::new(*own.as_bytes());
    let now = now(Time(0));
    device.set_private_key(Some(own.clone()), now);
    device.set_up(true, now);
    let public_key: PublicKey = other.public_key();
    let peer = PeerChange {
        endpoint: Some(SocketAddr::from(([192, 0, 2, 9], 51820))),
        allowed_ips: vec![("10.0.0.0/24".parse().expect("a prefix"), AllowedIpAction::Add)],
        ..PeerChange::new(public_key)
    };
    let change = DeviceChange { peers: vec![peer], ..DeviceChange::default() };
    device.apply(change, now).expect("the change is good");
    while device.poll_output().is_some() {}
    device
}

/// Makes the device send an initiation to its only peer.
fn initiate(device: &mut Device, now: Now) -> Vec<u8> {
    let peer = device.peers().next().expect("there is a peer").id;
    device.stage(peer, INNER.to_vec(), now);
    device.perform_work(now).expect("nothing was received");
    let mut sent = std::iter::from_fn(|| device.poll_output()).filter_map(|output| match output {
        Output::Transmit { datagram, .. } => Some(datagram),
        _ => None,
    });
    sent.next().expect("a staged packet starts a handshake")
}

/// Feeds datagrams to a gateway that waits for a response.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut gateway = device(&GATEWAY_KEY, &PEER_KEY);
    let initiation = initiate(&mut gateway, now(Time(0)));
    let own_index: [u8; 4] = initiation[4..8].try_into().expect("four bytes");
    let mut time = Time(0);
    let mut accepted = 0;
    while input.has_step() {
        time = time + Duration::from_millis(u64::from(input.value::<u16>()));
        let datagram = datagram(&mut input, own_index);
        let queued = input.below(2) * HANDSHAKE_QUEUE_MAX;
        let source = Endpoint::from(SocketAddr::from(([203, 0, 113, input.value()], 51820)));
        let is_under_load = gateway.admission().is_under_load(time) || queued > 0;
        let outcome = receive(&mut gateway, &datagram, source, queued, now(time));
        let outputs: Vec<Output> = std::iter::from_fn(|| gateway.poll_output()).collect();
        let proven_len = HANDSHAKE_INITIATION_LEN - 2 * MAC_LEN;
        if outcome == Ok(None) {
            assert_eq!(datagram.len(), HANDSHAKE_INITIATION_LEN, "only the initiation is genuine");
            // The sender's index is the one field that nobody proves: the paper leaves it out of the transcript.
            assert_eq!(datagram[..4], WIRE.initiation[..4]);
            assert_eq!(datagram[8..proven_len], WIRE.initiation[8..proven_len], "noise was accepted");
            accepted += 1;
        } else {
            assert!(outputs.is_empty(), "a refused datagram has led to {outputs:?}");
        }
        if let Ok(Some(reply)) = outcome {
            assert!(is_under_load, "a cookie without load");
            assert_eq!(reply.len(), COOKIE_REPLY_LEN);
            assert!(reply.len() <= datagram.len(), "amplification");
            assert_eq!(MessageType::classify(&reply), Ok(MessageType::CookieReply));
            assert_eq!(reply[4..8], datagram[4..8], "the reply goes to the sender's index");
            assert!(WIRE.gateway_keys.verify_mac1(&datagram), "a cookie for who does not know our key");
        }
    }
    assert!(accepted <= 1, "an initiation was replayed");
}

/// Bytes as they are, a message of the right form, or the genuine one with faults.
fn datagram(input: &mut Input, own_index: [u8; 4]) -> Vec<u8> {
    let mut datagram = match input.below(5) {
        0 => return input.bytes(256).to_vec(),
        1 => message(input, 1, HANDSHAKE_INITIATION_LEN),
        2 => message(input, 2, HANDSHAKE_RESPONSE_LEN),
        3 => message(input, 3, COOKIE_REPLY_LEN),
        _ => {
            let mut datagram = WIRE.initiation.clone();
            input.corrupt(&mut datagram);
            datagram
        }
    };
    // Where response and cookie reply say which handshake they belong to.
    let receiver_index = match datagram.first() {
        Some(2) => Some(8..12),
        Some(3) => Some(4..8),
        _ => None,
    };
    if let Some(place) = receiver_index.and_then(|place| datagram.get_mut(place))
        && input.value()
    {
        place.copy_from_slice(&own_index);
    }
    if input.value() {
        WIRE.gateway_keys.write_mac1(&mut datagram);
    }
    datagram
}

fn message(input: &mut Input, message_type: u8, len: usize) -> Vec<u8> {
    let mut datagram = input.padded(len);
    datagram[..4].copy_from_slice(&[message_type, 0, 0, 0]);
    datagram
}

/// What the threads for handshakes and control do with a datagram; `Some` is to be sent back.
fn receive(
    device: &mut Device,
    datagram: &[u8],
    source: Endpoint,
    queued: usize,
    now: Now,
) -> Result<Option<Vec<u8>>, DropReason> {
    match device.admission().admit(datagram, source, queued, now.monotonic)? {
        Admitted::Message(incoming) => device.receive(incoming, now)?,
        Admitted::Reply(datagram) => return Ok(Some(datagram)),
    }
    device.perform_work(now)?;
    Ok(None)
}
