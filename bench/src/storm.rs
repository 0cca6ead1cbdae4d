//! Handshake storms: initiations that nobody will complete, at a steady rate.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use wireguard::cookie::{MAC_LEN, ReceiverKeys};
use wireguard::message::HANDSHAKE_INITIATION_LEN;
use wireguard::{KEY_LEN, PublicKey};

/// What the initiations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storm {
    /// Random bytes behind a right header: mac1 is wrong.
    Garbage,
    /// As above with a right mac1: the sender knows the gateway's public key, and costs it an agreement on the
    /// curve, or a cookie.
    ValidMac1,
}

/// What became of a storm.
#[derive(Clone, Copy, Debug, Default)]
pub struct StormReport {
    /// Initiations the kernel took.
    pub sent: u64,
    /// Datagrams that came back: cookies.
    pub answers: u64,
}

/// Different messages that are sent in turn.
const MESSAGE_COUNT: usize = 1024;
/// Initiations are sent in bursts this far apart.
const TICK: Duration = Duration::from_millis(1);

/// Sends `per_second` initiations over a connected socket until `stop`, and counts what comes back.
///
/// # Errors
/// The kernel gives no randomness, or the socket is none that can be read without waiting.
pub fn send(
    socket: &UdpSocket,
    storm: Storm,
    receiver: &PublicKey,
    per_second: u32,
    stop: &AtomicBool,
) -> Result<StormReport> {
    ensure!(per_second > 0, "a storm of no messages is none");
    socket.set_nonblocking(true).context("cannot read a socket without waiting")?;
    let messages = messages(storm, receiver)?;
    let mut report = StormReport::default();
    let start = Instant::now();
    let mut due = messages.iter().cycle();
    let mut offered: u64 = 0;
    let mut answer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let target = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        // A sender that was held up does not make up for it: the storm is steady, not bursty.
        offered = offered.max(target.saturating_sub(u64::from(per_second) / 100));
        while offered < target {
            offered += 1;
            let message = due.next().context("there are messages")?;
            report.sent += u64::from(socket.send(message).is_ok());
        }
        while socket.recv(&mut answer).is_ok() {
            report.answers += 1;
        }
        std::thread::sleep(TICK);
    }
    Ok(report)
}

fn messages(storm: Storm, receiver: &PublicKey) -> Result<Vec<[u8; HANDSHAKE_INITIATION_LEN]>> {
    let keys = ReceiverKeys::new(receiver);
    let mut messages = vec![[0; HANDSHAKE_INITIATION_LEN]; MESSAGE_COUNT];
    for message in &mut messages {
        getrandom::fill(message).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        if storm == Storm::ValidMac1 {
            keys.write_mac1(message);
            message[HANDSHAKE_INITIATION_LEN - MAC_LEN..].fill(0);
        }
    }
    Ok(messages)
}

/// A public key as `wg` prints it.
///
/// # Errors
/// It is not 32 bytes in base64.
pub fn parse_public_key(text: &str) -> Result<PublicKey> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let bytes = STANDARD.decode(text).with_context(|| format!("{text:?} is no base64"))?;
    let bytes: [u8; KEY_LEN] =
        bytes.try_into().map_err(|_| anyhow::anyhow!("{text:?} does not hold {KEY_LEN} bytes"))?;
    Ok(PublicKey::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_storm_that_says_so_has_a_valid_mac1() {
        let receiver = PublicKey::from_bytes([7; KEY_LEN]);
        let keys = ReceiverKeys::new(&receiver);
        for (storm, is_valid) in [(Storm::Garbage, false), (Storm::ValidMac1, true)] {
            let messages = messages(storm, &receiver).expect("there is randomness");
            assert!(messages.iter().all(|message| keys.verify_mac1(message) == is_valid), "{storm:?}");
            assert!(messages.iter().all(|message| message[..4] == [1, 0, 0, 0]));
        }
    }

    #[test]
    fn storm_keeps_its_rate_and_counts_answers() {
        let there = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let here = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        here.connect(there.local_addr().expect("bound")).expect("loopback");
        there.connect(here.local_addr().expect("bound")).expect("loopback");
        there.send(&[3; 64]).expect("loopback");
        let stop = AtomicBool::new(false);
        let report = std::thread::scope(|scope| {
            let receiver = PublicKey::from_bytes([7; KEY_LEN]);
            let (here, stop) = (&here, &stop);
            let storm = scope.spawn(move || send(here, Storm::Garbage, &receiver, 1000, stop));
            let mut message = [0; 200];
            for _ in 0..50 {
                assert_eq!(there.recv(&mut message).expect("it arrives"), HANDSHAKE_INITIATION_LEN);
            }
            stop.store(true, Ordering::Relaxed);
            storm.join().expect("no panic").expect("it is sent")
        });
        assert!(report.sent >= 50);
        assert_eq!(report.answers, 1);
    }
}
