//! The control socket: any bytes in any pieces, against requests applied one after the other.

use gateway::control::{
    settings::DeviceSettings,
    uapi::{
        Command, UapiError,
        connection::serve_one,
        format::{Position, format_chunk},
        request::{LINE_LEN_MAX, Request, RequestParser},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
};
use wireguard::{Device, Now};

use crate::input::Input;

/// A port that another process has.
const PORT_IN_USE: u16 = 1;

/// The least that is configured: what a `get` tells, keys included.
struct Gateway {
    device: Device,
    listen_port: u16,
    fwmark: u32,
}

impl Gateway {
    fn new() -> Self {
        Self { device: Device::new([7; 32]), listen_port: 51820, fwmark: 0 }
    }

    /// All of the settings or none.
    fn apply(&mut self, settings: DeviceSettings) -> Result<(), UapiError> {
        if settings.listen_port == Some(PORT_IN_USE) {
            return Err(UapiError::AddressInUse("the port is in use".to_owned()));
        }
        self.device.apply(settings.change, Now::default()).expect("few peers");
        while self.device.poll_output().is_some() {}
        self.listen_port = settings.listen_port.unwrap_or(self.listen_port);
        self.fwmark = settings.fwmark.unwrap_or(self.fwmark);
        Ok(())
    }

    fn told(&self) -> String {
        let mut text = String::new();
        let mut position = Some(Position::default());
        while let Some(from) = position {
            let chunk = format_chunk(&self.device, self.listen_port, self.fwmark, from);
            text.push_str(&chunk.text);
            position = chunk.next;
        }
        text
    }
}

/// Has a conversation in pieces and in one; both come to what the requests are, taken one at a time.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let piece_lens: Vec<usize> = (0..input.below(16)).map(|_| 1 + input.below(300)).collect();
    let bytes = input.rest();
    let expected = expected(bytes);
    assert_eq!(conversation(bytes, &[bytes.len().max(1)]), expected, "in one piece");
    assert_eq!(conversation(bytes, &piece_lens), expected, "in pieces of {piece_lens:?}");
}

/// All answers, and what a `get` tells afterwards, by the parser of one request alone.
fn expected(bytes: &[u8]) -> (String, String) {
    let mut gateway = Gateway::new();
    let mut answers = Vec::new();
    let mut parser = RequestParser::default();
    let mut is_in_step = true;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let whole = line.strip_suffix(b"\n");
        let request = match whole {
            // No line of the protocol is as long: who sends one does not speak it.
            _ if whole.unwrap_or(line).len() > LINE_LEN_MAX => Some(Err(UapiError::EndlessLine)),
            Some(line) => parser.push_line(line),
            None => Some(Err(UapiError::Truncated)),
        };
        let Some(request) = request else { continue };
        parser = RequestParser::default();
        is_in_step = !matches!(
            request,
            Err(UapiError::EndlessLine | UapiError::UnknownOperation | UapiError::Truncated)
        );
        let before = gateway.told();
        let result = match request {
            Ok(Request::Get) => {
                answers.push(before);
                continue;
            }
            Ok(Request::Set(settings)) => gateway.apply(*settings),
            Err(error) => Err(error),
        };
        let errno = result.err().map_or(0, |error| error.errno());
        assert!(errno <= 0, "wg negates what it reads");
        assert!(errno == 0 || gateway.told() == before, "refused by {errno} and applied");
        answers.push(format!("errno={errno}\n\n"));
        if !is_in_step {
            break;
        }
    }
    if is_in_step && !parser.is_at_start() {
        answers.push(format!("errno={}\n\n", UapiError::Truncated.errno()));
    }
    (answers.concat(), gateway.told())
}

/// The same over a socket, whose other end is the gateway's own code.
fn conversation(bytes: &[u8], piece_lens: &[usize]) -> (String, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, server) = UnixStream::pair().expect("a pair of sockets");
        let (mut answers, mut requests) = client.into_split();
        let (commands, received) = mpsc::channel(1);
        let talk = async {
            let mut rest = bytes;
            for len in piece_lens.iter().copied().chain([bytes.len()]) {
                let (piece, next) = rest.split_at(len.min(rest.len()));
                rest = next;
                // The gateway hangs up on who is out of step.
                if requests.write_all(piece).await.is_err() {
                    break;
                }
                // It reads this piece before there is another one.
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
            }
            let _ = requests.shutdown().await;
        };
        let listen = async {
            let mut text = Vec::new();
            // Who hangs up on what it has not read resets the connection, after its last answer.
            let _ = answers.read_to_end(&mut text).await;
            String::from_utf8(text).expect("answers are text")
        };
        let ((), answers, told, _) =
            tokio::join!(talk, listen, control(received), serve_one(server, commands));
        (answers, told)
    })
}

async fn control(mut received: mpsc::Receiver<Command>) -> String {
    let mut gateway = Gateway::new();
    while let Some(command) = received.recv().await {
        // The client may have gone.
        match command {
            Command::Get(from, reply) => {
                let (listen_port, fwmark) = (gateway.listen_port, gateway.fwmark);
                let _ = reply.send(format_chunk(&gateway.device, listen_port, fwmark, from));
            }
            Command::Set(settings, reply) => {
                let _ = reply.send(gateway.apply(*settings));
            }
        }
    }
    gateway.told()
}
