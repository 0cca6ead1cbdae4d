//! Curve arithmetic that takes its time: what it finds changed when it comes back is never half done.

use wireguard::{
    Admitted, CurveWork, DeviceChange, DropReason, Endpoint, Incoming, MessageType, PeerChange, PresharedKey,
    PrivateKey, PrivateKeyChange,
};

use crate::{
    network::{ALICE, BOB, Network},
    node::{START, Sent, millis, now, packet, secs},
};

/// Bob's device holds Alice's initiation as work that nobody has done yet.
struct Slow {
    network: Network,
    source: Endpoint,
}

impl Slow {
    fn new() -> Self {
        let network = Network::pair();
        let source = Endpoint::from(network.nodes[ALICE].address);
        Self { network, source }
    }

    fn initiation(&mut self) -> Vec<u8> {
        let inner =
            packet(self.network.nodes[ALICE].inner_address, self.network.nodes[BOB].inner_address, 100, 0);
        let time = self.network.time;
        self.network.nodes[ALICE].send(&inner, time);
        self.network.nodes[ALICE].handle_timeout(time);
        self.network.nodes[ALICE].outbox.pop().expect("she initiates").datagram
    }

    fn admit(&self, datagram: &[u8]) -> Incoming {
        let admission = self.network.nodes[BOB].device.admission();
        match admission.admit(datagram, self.source, 0, self.network.time) {
            Ok(Admitted::Message(incoming)) => incoming,
            _ => panic!("a good message is let in"),
        }
    }

    /// Bob takes `datagram` up to the point where the response is to be made.
    fn respond_work(&mut self, datagram: &[u8]) -> CurveWork {
        let incoming = self.admit(datagram);
        let time = now(self.network.time);
        let bob = &mut self.network.nodes[BOB].device;
        bob.receive(incoming, time).expect("a good initiation");
        let agreement = bob.poll_work().expect("static keys are agreed on first").perform();
        bob.work_done(agreement, time).expect("the initiation is new");
        bob.poll_work().expect("a response is to be made")
    }

    fn finish(&mut self, work: CurveWork) -> Result<(), DropReason> {
        let time = now(self.network.time);
        self.network.nodes[BOB].device.work_done(work.perform(), time)
    }

    /// What Bob has sent, without doing further work.
    fn sent(&mut self) -> Vec<Sent> {
        let time = self.network.time;
        self.network.nodes[BOB].drain(time);
        std::mem::take(&mut self.network.nodes[BOB].outbox)
    }

    fn change(&mut self, change: DeviceChange) {
        let time = now(self.network.time);
        self.network.nodes[BOB].device.apply(change, time).expect("the change is good");
    }
}

#[test]
fn response_is_sent_when_its_work_is_done() {
    let mut slow = Slow::new();
    let initiation = slow.initiation();
    let work = slow.respond_work(&initiation);
    assert!(slow.sent().is_empty());
    assert_eq!(slow.finish(work), Ok(()));
    let sent = slow.sent();
    assert_eq!(MessageType::classify(&sent[0].datagram), Ok(MessageType::HandshakeResponse));
}

#[test]
fn work_for_a_removed_peer_is_void_even_if_its_slot_is_used_again() {
    let mut slow = Slow::new();
    let initiation = slow.initiation();
    let work = slow.respond_work(&initiation);
    let alice = slow.network.nodes[ALICE].public_key();
    slow.change(DeviceChange {
        peers: vec![
            PeerChange { remove: true, ..PeerChange::new(alice) },
            PeerChange::new(wireguard::PublicKey::from_bytes([0x55; 32])),
        ],
        ..DeviceChange::default()
    });
    assert!(!work.is_wanted(), "no curve arithmetic for who is gone");
    assert_eq!(slow.finish(work), Ok(()));
    assert!(slow.sent().is_empty());
    assert_eq!(slow.network.nodes[BOB].session_count(), 0);
}

#[test]
fn work_begun_under_another_private_key_is_void() {
    let mut slow = Slow::new();
    let initiation = slow.initiation();
    let work = slow.respond_work(&initiation);
    let key = PrivateKeyChange::Set(PrivateKey::from_bytes([0x33; 32]));
    slow.change(DeviceChange { private_key: key, ..DeviceChange::default() });
    assert_eq!(slow.finish(work), Ok(()));
    assert!(slow.sent().is_empty());
}

#[test]
fn message_let_in_under_another_private_key_is_dropped() {
    let mut slow = Slow::new();
    let initiation = slow.initiation();
    let incoming = slow.admit(&initiation);
    let key = PrivateKeyChange::Set(PrivateKey::from_bytes([0x33; 32]));
    slow.change(DeviceChange { private_key: key, ..DeviceChange::default() });
    let result = slow.network.nodes[BOB].device.receive(incoming, now(START));
    assert_eq!(result, Err(DropReason::NotReady));
}

#[test]
fn work_begun_before_the_interface_went_down_is_void() {
    let mut slow = Slow::new();
    let initiation = slow.initiation();
    let work = slow.respond_work(&initiation);
    let bob = &mut slow.network.nodes[BOB].device;
    bob.set_up(false, now(START));
    bob.set_up(true, now(START));
    assert_eq!(slow.finish(work), Ok(()));
    assert!(slow.sent().is_empty());
}

#[test]
fn newer_initiation_takes_the_place_of_a_response_in_the_making() {
    let mut slow = Slow::new();
    let first = slow.initiation();
    let first_work = slow.respond_work(&first);
    slow.network.time = slow.network.time + secs(6);
    let second = slow.initiation();
    let incoming = slow.admit(&second);
    let time = now(slow.network.time);
    slow.network.nodes[BOB].device.receive(incoming, time).expect("it is newer");
    let second_work = slow.network.nodes[BOB].device.poll_work().expect("another response");
    assert!(second_work.is_wanted() && !first_work.is_wanted());
    assert_eq!(slow.finish(second_work), Ok(()));
    assert_eq!(slow.finish(first_work), Ok(()));
    let sent = slow.sent();
    assert_eq!(sent.len(), 1, "one response, to the newer initiation");
    assert_eq!(sent[0].datagram[8..12], second[4..8]);
    assert_eq!(slow.network.nodes[BOB].session_count(), 1);
}

#[test]
fn response_that_comes_twice_while_it_is_verified_makes_one_session() {
    let mut network = Network::pair();
    network.send(ALICE, BOB, 1);
    network.run_for(millis(10));
    let response = network.seen_of(BOB, MessageType::HandshakeResponse)[0].datagram.clone();
    let (source, time) = (Endpoint::from(network.nodes[BOB].address), network.now());
    let alice = &mut network.nodes[ALICE].device;
    let works = [(); 2].map(|()| {
        let Ok(Admitted::Message(incoming)) = alice.admission().admit(&response, source, 0, time.monotonic)
        else {
            panic!("a good response is let in");
        };
        alice.receive(incoming, time).expect("it answers the initiation");
        alice.poll_work().expect("it is to be verified")
    });
    let [first, second] = works.map(|work| alice.work_done(work.perform(), time));
    assert_eq!((first, second), (Ok(()), Err(DropReason::UnknownIndex)));
    network.nodes[ALICE].drain(time.monotonic);
    assert_eq!(network.nodes[ALICE].session_count(), 1);
}

#[test]
fn response_is_bound_to_the_preshared_key_of_its_making() {
    let mut slow = Slow::new();
    let initiation = slow.initiation();
    let work = slow.respond_work(&initiation);
    let alice = slow.network.nodes[ALICE].public_key();
    let psk = Some(PresharedKey::from_bytes([7; 32]));
    slow.change(DeviceChange {
        peers: vec![PeerChange { preshared_key: psk, ..PeerChange::new(alice) }],
        ..DeviceChange::default()
    });
    assert_eq!(slow.finish(work), Ok(()));
    assert_eq!(slow.sent().len(), 1, "as if the key had changed a moment later");
}

#[test]
fn static_keys_are_agreed_on_ahead_when_nothing_else_is_to_do() {
    let mut slow = Slow::new();
    let time = now(START);
    let bob = &mut slow.network.nodes[BOB].device;
    let agreement = bob.poll_work().expect("Alice's key is new").perform();
    assert!(bob.poll_work().is_none());
    bob.work_done(agreement, time).expect("nothing can be wrong");
    let initiation = slow.initiation();
    let incoming = slow.admit(&initiation);
    let bob = &mut slow.network.nodes[BOB].device;
    bob.receive(incoming, time).expect("a good initiation");
    let work = bob.poll_work().expect("straight to the response");
    bob.work_done(work.perform(), time).expect("it is made");
    assert_eq!(slow.sent().len(), 1);
}

#[test]
fn few_agreements_are_computed_ahead_at_a_time() {
    let mut slow = Slow::new();
    let peers = (0..100).map(|byte| PeerChange::new(wireguard::PublicKey::from_bytes([byte; 32]))).collect();
    slow.change(DeviceChange { peers, ..DeviceChange::default() });
    let time = now(START);
    let bob = &mut slow.network.nodes[BOB].device;
    let mut begun: Vec<CurveWork> = std::iter::from_fn(|| bob.poll_work()).collect();
    assert_eq!(begun.len(), 16);
    let mut done = 0;
    while let Some(work) = begun.pop() {
        bob.work_done(work.perform(), time).expect("nothing can be wrong");
        done += 1;
        begun.extend(bob.poll_work());
    }
    assert_eq!(done, 101, "each peer once, Alice too");
}

#[test]
fn initiation_in_the_making_is_not_asked_for_again() {
    let mut slow = Slow::new();
    let bob = slow.network.nodes[BOB].public_key();
    let change = PeerChange { persistent_keepalive: Some(1), ..PeerChange::new(bob) };
    let change = DeviceChange { peers: vec![change], ..DeviceChange::default() };
    let alice = &mut slow.network.nodes[ALICE].device;
    alice.apply(change, now(START)).expect("the change is good");
    let work = alice.poll_work().expect("an initiation is to be made");
    let mut time = START;
    for _ in 0..60 {
        time = time + secs(1);
        alice.handle_timeout(now(time));
        assert!(alice.poll_work().is_none_or(|work| work.is_ahead()), "one at a time");
    }
    // It goes out late, but it goes out, and the next one is made after it.
    alice.work_done(work.perform(), now(time)).expect("it is made");
    assert_eq!(alice.counters().initiations_sent, 1);
    alice.handle_timeout(now(time + secs(6)));
    assert!(alice.poll_work().is_some_and(|work| !work.is_ahead()));
}
