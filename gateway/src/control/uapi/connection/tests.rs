//! Conversations over a socket pair with a stand-in for the control loop.

use tokio::net::UnixStream;

use super::*;

/// Sends `input`, closes the writing side and returns all answers; and how many commands came through.
async fn talk(input: &[u8]) -> (String, usize) {
    let (mut client, server) = UnixStream::pair().unwrap();
    let (commands, mut received) = mpsc::channel(1);
    let conversation = tokio::spawn(converse(server, commands));
    let control = tokio::spawn(async move {
        let mut count = 0;
        while let Some(command) = received.recv().await {
            count += 1;
            match command {
                Command::Get(reply) => {
                    reply.send(Zeroizing::new("listen_port=1\nerrno=0\n\n".to_owned())).unwrap();
                }
                Command::Set(settings, reply) => {
                    let answer = match settings.listen_port {
                        Some(1) => Err(UapiError::AddressInUse("port 1".to_owned())),
                        _ => Ok(()),
                    };
                    reply.send(answer).unwrap();
                }
            }
        }
        count
    });
    client.write_all(input).await.unwrap();
    client.shutdown().await.unwrap();
    let mut output = String::new();
    client.read_to_string(&mut output).await.unwrap();
    let _ = conversation.await.unwrap();
    (output, control.await.unwrap())
}

#[tokio::test]
async fn several_operations_share_a_connection() {
    let (output, count) = talk(b"get=1\n\nset=1\n\nset=1\nlisten_port=1\n\nget=1\n\n").await;
    let get = "listen_port=1\nerrno=0\n\n";
    assert_eq!(output, format!("{get}errno=0\n\nerrno=-{}\n\n{get}", libc::EADDRINUSE));
    assert_eq!(count, 4);
}

#[tokio::test]
async fn a_bad_set_is_answered_and_the_next_request_is_understood() {
    let (output, count) = talk(b"set=1\nlisten_port=x\nfwmark=1\n\nset=1\n\n").await;
    assert_eq!(output, format!("errno=-{}\n\nerrno=0\n\n", libc::EINVAL));
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_request_cut_short_is_not_applied() {
    let (output, count) = talk(b"set=1\nfwmark=1\n").await;
    assert_eq!((output.as_str(), count), ("", 0));
}

#[tokio::test]
async fn an_endless_line_ends_the_conversation() {
    let (output, count) = talk(&[b"set=1\n".as_slice(), &[b'a'; CHUNK_LEN - 6]].concat()).await;
    assert_eq!((output, count), (format!("errno=-{}\n\n", libc::EINVAL), 0));
}

#[tokio::test]
async fn an_unknown_operation_ends_the_conversation() {
    let (output, count) = talk(b"put=1\n").await;
    assert_eq!((output, count), (format!("errno=-{}\n\n", libc::EINVAL), 0));
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
