//! Sender and receiver against each other on the loopback interface: as a library and as the program.

use std::io::Read as _;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use bench::media::{
    self, Kind, PacketCounts, Profile, ReceiveOptions, Report, Schedule, SendOptions, SendReport,
};

fn sink() -> (UdpSocket, SocketAddr) {
    let socket = media::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback can be bound");
    let address = socket.local_addr().expect("a bound socket has an address");
    (socket, address)
}

/// Runs a schedule from one thread to another.
fn run(schedule: Schedule, send: SendOptions, receive: ReceiveOptions) -> (SendReport, Report) {
    let (socket, address) = sink();
    let never = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| media::receive(&socket, receive, &never).expect("received"));
        let sender = media::connect(address, None).expect("loopback is reachable");
        let sent = media::send(&sender, schedule, send, &never).expect("sent");
        (sent, receiver.join().expect("the receiver does not panic"))
    })
}

#[test]
fn conference_arrives_whole_and_is_reflected() {
    let schedule = Schedule::media(Profile::Conference, 3, Duration::from_secs(1));
    let packet_count = schedule.clone().count() as u64;
    let (sent, received) = run(
        schedule,
        SendOptions { round_trip: true },
        ReceiveOptions { reflect: true, ..ReceiveOptions::default() },
    );
    assert_eq!((sent.sent, sent.failed, sent.unsent), (packet_count, 0, 0));
    let round_trip = sent.round_trip.expect("the round trip was asked for");
    for report in [&received, &round_trip] {
        let PacketCounts { expected, received, lost, duplicates, .. } = report.total();
        assert_eq!([expected, received, lost, duplicates], [packet_count, packet_count, 0, 0], "{report}");
        assert_eq!(report.streams.len(), 6);
        assert_eq!(report.malformed, 0);
        let kinds: Vec<Kind> = report.flows.iter().map(|flow| flow.kind).collect();
        assert_eq!(kinds, [Kind::Audio, Kind::Video]);
    }
    let one_way = received.flows[0].latency.expect("audio arrived");
    let there_and_back = round_trip.flows[0].latency.expect("audio came back");
    assert!(there_and_back.min_us > one_way.min_us, "{there_and_back:?} {one_way:?}");
}

#[test]
fn flood_arrives_whole_at_a_coalescing_receiver() {
    let receive = ReceiveOptions { coalesce: Duration::from_millis(1), ..ReceiveOptions::default() };
    let payload_len = media::udp_payload_len(1_228, [127, 0, 0, 1].into()).expect("fits");
    let schedule = Schedule::flood(5_000, payload_len, Duration::from_secs(1));
    let (sent, received) = run(schedule, SendOptions::default(), receive);
    assert_eq!(sent.sent, 5_000);
    let total = received.total();
    assert_eq!((total.received, total.lost, total.bytes), (5_000, 0, 5_000 * 1_200), "{received}");
}

#[test]
fn receiver_without_a_sender_gives_up_and_reports_nothing() {
    let (socket, _) = sink();
    let options = ReceiveOptions { wait: Duration::from_millis(100), ..ReceiveOptions::default() };
    let report = media::receive(&socket, options, &AtomicBool::new(false)).expect("received");
    assert!(report.flows.is_empty() && report.streams.is_empty());
}

#[test]
fn stopped_sender_says_what_it_left_out_and_ends_its_streams_there() {
    let (socket, address) = sink();
    let (stop, never) = (AtomicBool::new(true), AtomicBool::new(false));
    let schedule = Schedule::media(Profile::Audio, 1, Duration::from_secs(1));
    let (sent, received) = thread::scope(|scope| {
        let receiver = scope.spawn(|| media::receive(&socket, ReceiveOptions::default(), &never));
        let sender = media::connect(address, None).expect("loopback is reachable");
        let sent = media::send(&sender, schedule, SendOptions::default(), &stop).expect("sent");
        (sent, receiver.join().expect("the receiver does not panic").expect("received"))
    });
    assert_eq!((sent.sent, sent.unsent), (0, 50));
    assert_eq!((received.streams.len(), received.total().lost), (1, 0));
}

/// Ends the process when the test fails before it did.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgx-media"));
    command.args(arguments).stdout(Stdio::piped());
    command
}

#[test]
fn program_reports_as_json_when_told_to_end() {
    // A port that was just free: the program is told where to receive.
    let address = sink().1.to_string();
    let child = program(&["receive", "--bind", &address, "--json", "--idle", "60"]).spawn().expect("started");
    let mut receiver = Killed(child);
    let sender = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    // Until the receiver is there, its port answers with ICMP.
    sender.connect(&address).expect("loopback is reachable");
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(20));
        if sender.send(b"not ours").is_ok() && sender.send(b"not ours").is_ok() {
            break;
        }
    }
    // The program's own ending would take 60 s.
    let pid = receiver.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    let mut json = String::new();
    receiver.0.stdout.take().expect("piped").read_to_string(&mut json).expect("text");
    assert!(receiver.0.wait().expect("ended").success());
    let report: Report = serde_json::from_str(&json).expect("the report is JSON");
    assert!(report.streams.is_empty() && report.malformed > 0, "{report:?}");
}

#[test]
fn program_refuses_impossible_arguments_with_a_reason() {
    let (_in_use, address) = sink();
    let address = address.to_string();
    for (arguments, reason) in [
        (["flood", "--to", "127.0.0.1:9", "--pps", "10", "--size", "20"].as_slice(), "20 bytes"),
        (&["flood", "--to", "127.0.0.1:9", "--pps", "0"], "0 is not in 1.."),
        (&["send", "--to", "127.0.0.1:9", "--seconds", "0"], "between 0.001 and 86400"),
        (&["receive", "--bind", &address], &address),
    ] {
        let output = program(arguments).stderr(Stdio::piped()).output().expect("ran");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(reason), "{arguments:?}: {stderr}");
    }
}
