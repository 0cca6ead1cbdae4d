//! Conversations with a stand-in for the control loop: over a socket pair, and over a listener for many at once.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::lines::CHUNK_LEN;
use super::*;

const GET: &str = "listen_port=1\nerrno=0\n\n";

/// What a client sees of one peer: more than fits into a socket's buffer when there are a thousand.
const PEER: [u8; 1000] = [b'p'; 1000];

/// Plays the control loop: a port of 1 is in use, and a `get` has `chunk_count` chunks before its end. Returns
/// how many operations there were.
async fn control(mut received: mpsc::Receiver<Command>, chunk_count: u64) -> usize {
    let mut count = 0;
    while let Some(command) = received.recv().await {
        match command {
            Command::Get(from, reply) => {
                let number = if let Position::Peer(number) = from { number } else { 0 };
                count += usize::from(from == Position::Device);
                let (text, next) = if number < chunk_count {
                    let text = str::from_utf8(&PEER).unwrap().repeat(64);
                    (text, Some(Position::Peer(number + 1)))
                } else {
                    (GET.to_owned(), None)
                };
                // The client may have gone.
                let _ = reply.send(Chunk { text: Zeroizing::new(text), next });
            }
            Command::Set(settings, reply) => {
                count += 1;
                let answer = match settings.listen_port {
                    Some(1) => Err(UapiError::AddressInUse("port 1".to_owned())),
                    _ => Ok(()),
                };
                let _ = reply.send(answer);
            }
        }
    }
    count
}

/// A conversation in the background; the client's end of it and how it ends.
fn conversation(floor: &Arc<Floor>) -> (UnixStream, tokio::task::JoinHandle<std::io::Result<()>>) {
    let (client, server) = UnixStream::pair().unwrap();
    let floor = Arc::clone(floor);
    let task = tokio::spawn(async move { converse(server, &floor, &Waiting::default()).await });
    (client, task)
}

/// Sends `input`, closes the writing side and returns all answers; and how many commands came through.
async fn talk(input: &[u8]) -> (String, usize) {
    let (commands, received) = mpsc::channel(1);
    let floor = Arc::new(Floor::new(commands));
    let (mut client, task) = conversation(&floor);
    drop(floor);
    let control = tokio::spawn(control(received, 0));
    // A conversation that has ended takes no more.
    let _ = client.write_all(input).await;
    let _ = client.shutdown().await;
    let mut output = Vec::new();
    // What was not read when the other end closed is an error, after what it said.
    let _ = client.read_to_end(&mut output).await;
    let _ = task.await.unwrap();
    (String::from_utf8(output).unwrap(), control.await.unwrap())
}

#[tokio::test]
async fn several_operations_share_a_connection() {
    let (output, count) = talk(b"get=1\n\nset=1\n\nset=1\nlisten_port=1\n\nget=1\n\n").await;
    assert_eq!(output, format!("{GET}errno=0\n\nerrno=-{}\n\n{GET}", libc::EADDRINUSE));
    assert_eq!(count, 4);
}

#[tokio::test]
async fn a_bad_set_is_answered_and_the_next_request_is_understood() {
    let (output, count) = talk(b"set=1\nlisten_port=x\nfwmark=1\n\nset=1\n\n").await;
    assert_eq!(output, format!("errno=-{}\n\nerrno=0\n\n", libc::EINVAL));
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_get_with_a_tail_is_refused_and_the_next_request_is_understood() {
    let (output, count) = talk(b"get=1\nlisten_port=1\n\nget=1\n\n").await;
    assert_eq!(output, format!("errno=-{}\n\n{GET}", libc::EINVAL));
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_request_cut_short_is_refused_wherever_it_is_cut() {
    let request = b"set=1\nfwmark=1\n\n";
    for len in 1..request.len() {
        let (output, count) = talk(&request[..len]).await;
        assert_eq!((output, count), (format!("errno=-{}\n\n", libc::EPROTO), 0), "{len} bytes");
    }
    assert_eq!(talk(b"").await, (String::new(), 0));
}

#[tokio::test]
async fn an_endless_line_ends_the_conversation() {
    for start in ["", "set=1\n", "get=1\n"] {
        let mut input = start.as_bytes().to_vec();
        input.resize(1 << 20, b'a');
        let (output, count) = talk(&input).await;
        assert_eq!((output, count), (format!("errno=-{}\n\n", libc::EINVAL), 0));
    }
}

#[tokio::test]
async fn a_line_too_long_ends_the_conversation_however_it_arrives() {
    let line = "f".repeat(super::super::request::LINE_LEN_MAX + 1);
    let input = format!("set=1\n{line}\n\nset=1\n\n");
    assert_eq!(talk(input.as_bytes()).await, (format!("errno=-{}\n\n", libc::EINVAL), 0));
    // The same without what follows the line's last byte: it has not arrived yet.
    let start = &input[.."set=1\n".len() + line.len()];
    assert_eq!(talk(start.as_bytes()).await, (format!("errno=-{}\n\n", libc::EINVAL), 0));
}

#[tokio::test]
async fn an_unknown_operation_ends_the_conversation() {
    for input in ["put=1\n", "\n", "get=2\n\n", "get=1 \n\n", "GET=1\n\n", "set=1\r\n\r\n"] {
        let (output, count) = talk(input.as_bytes()).await;
        assert_eq!((output, count), (format!("errno=-{}\n\n", libc::EINVAL), 0), "{input:?}");
    }
}

#[tokio::test]
async fn a_request_larger_than_the_buffer_arrives_whole() {
    let mut request = b"set=1\n".to_vec();
    for _ in 0..CHUNK_LEN / 8 {
        request.extend_from_slice(b"fwmark=77\n");
    }
    request.extend_from_slice(b"\n");
    let (output, count) = talk(&request).await;
    assert_eq!((output.as_str(), count), ("errno=0\n\n", 1));
}

#[tokio::test]
async fn a_request_beyond_all_bounds_is_refused() {
    let line = b"fwmark=77\n";
    let lines = line.repeat(super::super::request::REQUEST_LEN_MAX / line.len());
    let request = [b"set=1\n", lines.as_slice(), b"\n"].concat();
    let (output, count) = talk(&request).await;
    assert_eq!((output, count), (format!("errno=-{}\n\n", libc::EMSGSIZE), 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_too_little_does_not_last_for_ever() {
    let (commands, _received) = mpsc::channel(1);
    let floor = Arc::new(Floor::new(commands));
    let (mut client, task) = conversation(&floor);
    let start = Instant::now();
    let mut sent = 0;
    // A byte a second, and there are more seconds than the request may take.
    for byte in "set=1\n".bytes().chain("fwmark=1\n".bytes().cycle()) {
        if client.write_all(&[byte]).await.is_err() {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(start.elapsed() < Duration::from_mins(5), "still there after {sent} bytes");
    }
    assert!(task.await.unwrap().is_err());
    assert!(sent > 30, "gone after {sent} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_up_no_change() {
    let (commands, received) = mpsc::channel(1);
    let control = tokio::spawn(control(received, 1000));
    let floor = Arc::new(Floor::new(commands));
    let (mut deaf, deaf_task) = conversation(&floor);
    deaf.write_all(b"get=1\n\n").await.unwrap();
    // It has begun once there is something to read.
    deaf.readable().await.unwrap();
    let (mut client, task) = conversation(&floor);
    let start = Instant::now();
    client.write_all(b"set=1\n\nget=1\n\n").await.unwrap();
    let mut answer = [0; 9];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"errno=0\n\n");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(deaf_task.await.unwrap().is_err(), "it was waited for");
    // One that reads gets all of it.
    client.shutdown().await.unwrap();
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    assert_eq!(told.len(), 1000 * 64 * PEER.len() + GET.len());
    task.await.unwrap().unwrap();
    drop(floor);
    assert_eq!(control.await.unwrap(), 3);
}

#[tokio::test]
async fn a_client_too_many_is_served_and_the_slowest_has_to_leave() {
    let path = std::env::temp_dir().join(format!("wgx-clients-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let (commands, received) = mpsc::channel(1);
    let server = tokio::spawn(serve(listener, commands));
    let control = tokio::spawn(control(received, 0));
    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"get=1\n\nset=1\n").await.unwrap();
        let mut answer = vec![0; GET.len()];
        client.read_exact(&mut answer).await.unwrap();
        slow.push(client);
    }
    let mut client = UnixStream::connect(&path).await.unwrap();
    client.write_all(b"get=1\n\n").await.unwrap();
    let mut answer = vec![0; GET.len()];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, GET.as_bytes());
    // The first one has waited longest; the others are still there.
    assert_eq!(slow[0].read(&mut answer).await.unwrap_or(0), 0, "the slowest stays");
    slow[1].write_all(b"\n").await.unwrap();
    slow[1].read_exact(&mut answer[..9]).await.unwrap();
    server.abort();
    drop(client);
    assert_eq!(control.await.unwrap(), CONNECTIONS_MAX + 2);
    std::fs::remove_file(path).unwrap();
}
