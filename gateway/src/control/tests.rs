//! The control thread without a data plane: driven by `wg`, by the kernel and by workers' notes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wireguard::{
    AllowedIpAction, DeviceChange, Endpoint, PeerChange, PrivateKey, PrivateKeyChange, PublicKey,
};

use super::*;
use crate::dataplane::tables::Shared;
use crate::handshake::HandshakeThreads;
use crate::report;

/// A port that somebody else has.
const PORT_IN_USE: u16 = 1;

/// Controls started so far, so that each has a name of its own.
static COUNT: AtomicU32 = AtomicU32::new(0);

type Sent = Arc<Mutex<Vec<(Endpoint, Vec<u8>)>>>;

/// Sockets that only remember.
struct Recorder {
    port: u16,
    sent: Sent,
}

impl OuterSockets for Recorder {
    fn listen_port(&self) -> u16 {
        self.port
    }

    fn send(&self, to: &Endpoint, datagram: &[u8], _tos: u8) -> io::Result<()> {
        self.sent.lock().unwrap().push((*to, datagram.to_vec()));
        Ok(())
    }

    fn set_listen_port(&mut self, port: u16) -> io::Result<u16> {
        if port == PORT_IN_USE {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.port = if port == 0 { 40000 } else { port };
        Ok(self.port)
    }

    fn set_fwmark(&mut self, _mark: u32) -> io::Result<()> {
        Ok(())
    }

    fn forget_former(&mut self) {}
}

/// A control thread in a network namespace of its own.
struct Running {
    name: String,
    dir: PathBuf,
    mailbox: Arc<Mailbox>,
    sent: Sent,
    thread: JoinHandle<Result<()>>,
}

impl Running {
    /// Starts one, or says why this test is skipped. `tunnel` is a link to make and to take for the TUN device.
    fn start(test: &str, initial: Option<DeviceSettings>, tunnel: bool) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            report::skip(test, "needs root");
            return None;
        }
        let name = format!("t{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("wgx-control-{name}"));
        let device = Device::new([7; 32]);
        let shared = Arc::new(Shared::new(device.index_permutation()).unwrap());
        let mailbox = Arc::clone(&shared.mailbox);
        let sent = Sent::default();
        let sockets = Recorder { port: 51820, sent: Arc::clone(&sent) };
        let (clock, admission) = (Clock::start(), Arc::clone(device.admission()));
        let handshakes = HandshakeThreads::start(admission, Arc::clone(&mailbox), clock, |_, _| ()).unwrap();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = {
            let (name, dir, mailbox) = (name.clone(), dir.clone(), Arc::clone(&mailbox));
            std::thread::spawn(move || {
                netlink::test_netns::enter().context("cannot make a network namespace")?;
                let tunnel_index = tunnel.then(|| {
                    netlink::test_netns::ip("link add tunnel mtu 1400 type veth peer name other");
                    netlink::test_netns::index_of("tunnel")
                });
                let control = Control::with_dirs(
                    ControlParts {
                        name,
                        clock,
                        device,
                        publisher: Publisher::new(shared, std::collections::BTreeSet::new()),
                        mailbox,
                        handshakes,
                        sockets: Box::new(sockets),
                        steering: None,
                        steered: Vec::new(),
                        tunnel_index,
                        status: StatusSources::default(),
                        initial,
                    },
                    Path::new(UAPI_DIR),
                    &dir,
                )?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                ready.send(()).unwrap();
                runtime.block_on(async {
                    let run = control.run(|| Ok(()));
                    if !tunnel {
                        return run.await;
                    }
                    // The namespace is this thread's, so the link is changed from here.
                    let life = async {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        netlink::test_netns::ip("link set tunnel up");
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        netlink::test_netns::ip("link del tunnel");
                    };
                    tokio::join!(run, life).0
                })
            })
        };
        if is_ready.recv().is_err() {
            thread.join().unwrap().expect("control starts");
            return None;
        }
        Some(Self { name, dir, mailbox, sent, thread })
    }

    fn wg(&self, arguments: &str) -> Output {
        let arguments = arguments.replace("NAME", &self.name).replace("DIR", self.dir.to_str().unwrap());
        Command::new("wg").args(arguments.split(' ')).output().expect("wg is installed (wireguard-tools)")
    }

    fn wg_ok(&self, arguments: &str) -> String {
        let output = self.wg(arguments);
        assert!(output.status.success(), "wg {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Ends it the way an operator may: by removing the socket.
    fn stop(self) {
        fs::remove_file(Path::new(UAPI_DIR).join(format!("{}.sock", self.name))).unwrap();
        self.thread.join().unwrap().unwrap();
        assert!(!self.dir.join(format!("{}.sock", self.name)).exists(), "the status socket stayed behind");
        fs::remove_dir_all(self.dir).unwrap();
    }
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_bytes([seed; 32])
}

fn base64(key: &[u8; 32]) -> String {
    PublicKey::from_bytes(*key).to_string()
}

#[test]
fn wg_shows_and_sets_everything() {
    let Some(running) = Running::start("wg_shows_and_sets_everything", None, false) else { return };
    let ours = key(1);
    let (first, second) = (key(2).public_key(), key(3).public_key());
    let psk = base64(&[9; 32]);
    running.file("key", &base64(ours.as_bytes()));
    running.file("psk", &psk);

    running.wg_ok("set NAME private-key DIR/key listen-port 12345 fwmark 0x2a");
    running.wg_ok(&format!(
        "set NAME peer {first} preshared-key DIR/psk endpoint [2001:db8::1]:7 persistent-keepalive 25 \
         allowed-ips 10.0.0.0/24,fd00::/64"
    ));
    let ours_line = format!("{}\t{}\t12345\t0x2a\n", base64(ours.as_bytes()), ours.public_key());
    let dump = running.wg_ok("show NAME dump");
    let first_line = format!("{first}\t{psk}\t[2001:db8::1]:7\t10.0.0.0/24,fd00::/64\t0\t");
    assert!(dump.starts_with(&format!("{ours_line}{first_line}")), "{dump}");
    assert!(dump.ends_with("\t25\n"), "{dump}");
    assert!(running.wg_ok("show NAME").contains("persistent keepalive: every 25 seconds"));
    assert!(running.wg_ok("show interfaces").split_whitespace().any(|name| name == running.name));

    running.file("conf", &format!(
        "[Interface]\nPrivateKey={}\nListenPort=12345\n[Peer]\nPublicKey={second}\nAllowedIPs=10.0.1.0/24\n",
        base64(ours.as_bytes())
    ));
    running.wg_ok("setconf NAME DIR/conf");
    assert_eq!(running.wg_ok("show NAME allowed-ips"), format!("{second}\t10.0.1.0/24\n"));
    assert_eq!(running.wg_ok("show NAME fwmark"), "off\n");

    running.wg_ok(&format!("set NAME peer {first} preshared-key DIR/psk allowed-ips 10.0.1.0/24"));
    assert_eq!(running.wg_ok("show NAME allowed-ips").lines().count(), 2);
    running.wg_ok("syncconf NAME DIR/conf");
    assert_eq!(running.wg_ok("show NAME allowed-ips"), format!("{second}\t10.0.1.0/24\n"));
    running.wg_ok(&format!("set NAME peer {second} remove"));
    assert_eq!(running.wg_ok("show NAME peers"), "");
    running.stop();
}

#[test]
fn a_refused_set_changes_nothing() {
    let Some(running) = Running::start("a_refused_set_changes_nothing", None, false) else { return };
    let peer = key(2).public_key();
    let before = running.wg_ok("show NAME dump");
    let output =
        running.wg(&format!("set NAME listen-port {PORT_IN_USE} peer {peer} allowed-ips 10.0.0.0/8"));
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("Address already in use"), "{message}");
    assert_eq!(running.wg_ok("show NAME dump"), before);
    running.stop();
}

#[test]
fn the_status_tells_of_peers_and_holds_no_secret() {
    let peer = key(2).public_key();
    let mut change = PeerChange::new(peer);
    change.allowed_ips.push(("10.0.0.0/8".parse().unwrap(), AllowedIpAction::Add));
    change.preshared_key = Some(wireguard::PresharedKey::from_bytes([9; 32]));
    let initial = DeviceSettings {
        change: DeviceChange {
            private_key: PrivateKeyChange::Set(key(1)),
            peers: vec![change],
            ..DeviceChange::default()
        },
        listen_port: Some(4444),
        fwmark: None,
    };
    let test = "the_status_tells_of_peers_and_holds_no_secret";
    let Some(running) = Running::start(test, Some(initial), false) else { return };
    let status = status::read::read_from(&running.dir, &running.name).unwrap();
    assert_eq!((status.listen_port, status.up, status.mtu), (4444, true, 1420));
    assert_eq!(status.public_key, Some(key(1).public_key().to_string()));
    assert_eq!(status.peers.len(), 1);
    let report = &status.peers[0];
    assert_eq!((report.public_key.clone(), report.allowed_ip_count), (peer.to_string(), 1));
    assert_eq!(report.path, "kernel");
    assert_eq!(status::read::instances_in(&running.dir).unwrap(), std::slice::from_ref(&running.name));
    let text = serde_json::to_string(&status).unwrap();
    for secret in [base64(key(1).as_bytes()), base64(&[9; 32]), "09".repeat(32)] {
        assert!(!text.contains(&secret));
    }
    running.stop();
}

#[test]
fn a_second_gateway_of_that_name_is_refused() {
    let Some(running) = Running::start("a_second_gateway_of_that_name_is_refused", None, false) else {
        return;
    };
    let error = SocketFile::bind(Path::new(UAPI_DIR), 0o755, &running.name).unwrap_err().to_string();
    assert!(error.contains("another wgx or wireguard-go runs"), "{error}");
    running.stop();
}

#[test]
fn a_handshake_from_the_mailbox_is_answered_through_the_sockets() {
    let now = Clock::start().now();
    let mut client = Device::new([8; 32]);
    let mut gateway_peer = PeerChange::new(key(1).public_key());
    gateway_peer.endpoint = Some("192.0.2.1:51820".parse().unwrap());
    gateway_peer.persistent_keepalive = Some(1);
    let change = DeviceChange {
        private_key: PrivateKeyChange::Set(key(2)),
        peers: vec![gateway_peer],
        ..DeviceChange::default()
    };
    client.apply(change, now).unwrap();
    client.set_up(true, now);
    client.perform_work(now).unwrap();
    let initiation = std::iter::from_fn(|| client.poll_output())
        .find_map(|output| match output {
            wireguard::Output::Transmit { datagram, .. } => Some(datagram),
            _ => None,
        })
        .expect("a persistent keepalive makes the client initiate");

    let initial = DeviceSettings {
        change: DeviceChange {
            private_key: PrivateKeyChange::Set(key(1)),
            peers: vec![PeerChange::new(key(2).public_key())],
            ..DeviceChange::default()
        },
        ..DeviceSettings::default()
    };
    let test = "a_handshake_from_the_mailbox_is_answered_through_the_sockets";
    let Some(running) = Running::start(test, Some(initial), false) else { return };
    let source = Endpoint::from(std::net::SocketAddr::from(([198, 51, 100, 7], 999)));
    assert!(running.mailbox.push_handshake(&initiation, source));
    let deadline = Instant::now() + Duration::from_secs(10);
    while running.sent.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "no response was sent");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (to, response) = running.sent.lock().unwrap()[0].clone();
    assert_eq!((to, response[0]), (source, 2));
    client.receive_handshake(&response, Endpoint::from(to.remote), now).unwrap();
    let endpoints = running.wg_ok("show NAME endpoints");
    assert!(endpoints.contains("198.51.100.7:999"), "{endpoints}");
    running.stop();
}

#[test]
fn removing_the_tunnel_device_ends_control() {
    let Some(running) = Running::start("removing_the_tunnel_device_ends_control", None, true) else { return };
    let mut was_up = false;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !running.thread.is_finished() {
        assert!(Instant::now() < deadline, "control goes on without its tunnel");
        if let Ok(status) = status::read::read_from(&running.dir, &running.name) {
            was_up |= status.up;
            assert_eq!(status.mtu, 1400);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    running.thread.join().unwrap().unwrap();
    assert!(was_up, "the device was not up while its link was");
    assert!(!Path::new(UAPI_DIR).join(format!("{}.sock", running.name)).exists());
    fs::remove_dir_all(running.dir).unwrap();
}
