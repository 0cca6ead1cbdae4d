//! The control socket: any bytes in any pieces.

use gateway::control::{
    settings::DeviceSettings,
    uapi::{
        Command,
        connection::converse,
        format::format_get,
        request::{Request, RequestParser},
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wireguard::{Device, Now};

use crate::input::Input;

/// Room for what is under way: less than most requests, so that the client has to wait.
const PIPE_LEN: usize = 64;

/// What a conversation came to.
struct Outcome {
    answers: String,
    settings: Vec<DeviceSettings>,
    get_count: usize,
}

/// Has a conversation twice, in pieces and in one; then applies what was asked for.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let piece_lens: Vec<usize> = (0..input.below(16)).map(|_| 1 + input.below(300)).collect();
    let bytes = input.rest();
    let whole = conversation(bytes, &[bytes.len().max(1)]);
    let pieces = conversation(bytes, &piece_lens);
    assert_eq!(whole.answers, pieces.answers, "pieces matter");
    assert_eq!(shown(&whole.settings), shown(&pieces.settings), "pieces matter");

    let good = whole.answers.matches("errno=0\n\n").count();
    assert_eq!(good, whole.settings.len() + whole.get_count, "a refused request was applied");
    assert_eq!(shown(&whole.settings)[..], shown(&understood(bytes))[..whole.settings.len()]);

    let mut device = Device::new([7; 32]);
    for settings in whole.settings {
        device.apply(settings.change, Now::default()).expect("few peers");
        while device.poll_output().is_some() {}
        assert!(format_get(&device, 0, 0).ends_with("errno=0\n\n"));
    }
}

/// Debug output leaves the keys out, and nothing else.
fn shown(settings: &[DeviceSettings]) -> Vec<String> {
    settings.iter().map(|settings| format!("{settings:?}")).collect()
}

/// The good settings of all lines, by the parser alone. A connection may end before the last of them.
fn understood(bytes: &[u8]) -> Vec<DeviceSettings> {
    let mut parser = RequestParser::default();
    let mut settings = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        if let Some(request) = parser.push_line(line) {
            if let Ok(Request::Set(change)) = request {
                settings.push(*change);
            }
            parser = RequestParser::default();
        }
    }
    settings
}

fn conversation(bytes: &[u8], piece_lens: &[usize]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let (client, server) = tokio::io::duplex(PIPE_LEN);
        let (mut answers, mut requests) = tokio::io::split(client);
        let (commands, mut received) = tokio::sync::mpsc::channel(1);
        let talk = async {
            let mut rest = bytes;
            for len in piece_lens.iter().copied().chain([bytes.len()]) {
                let (piece, next) = rest.split_at(len.min(rest.len()));
                rest = next;
                // The gateway hangs up on who is out of step.
                if requests.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = requests.shutdown().await;
        };
        let listen = async {
            let mut text = String::new();
            answers.read_to_string(&mut text).await.expect("answers are text");
            text
        };
        let control = async {
            let (mut settings, mut get_count) = (Vec::new(), 0);
            while let Some(command) = received.recv().await {
                match command {
                    Command::Get(reply) => {
                        get_count += 1;
                        let _ = reply.send("errno=0\n\n".to_owned().into());
                    }
                    Command::Set(change, reply) => {
                        settings.push(*change);
                        let _ = reply.send(Ok(()));
                    }
                }
            }
            (settings, get_count)
        };
        let ((), answers, (settings, get_count), _) =
            tokio::join!(talk, listen, control, converse(server, commands));
        Outcome { answers, settings, get_count }
    })
}
