//! The conversation on one connection: requests in, answers out, until the client leaves or takes too long.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{SemaphorePermit, oneshot};
use tokio::time::timeout;

use super::floor::Floor;
use super::lines::{Line, Lines};
use super::{Command, Waiting};
use crate::control::settings::DeviceSettings;
use crate::control::uapi::error::UapiError;
use crate::control::uapi::format::Position;
use crate::control::uapi::request::{Request, RequestParser};

/// How long a client may take from one answer to the end of its next request.
const REQUEST_TIME_MAX: Duration = Duration::from_mins(1);
/// How long it may take to read an answer of one line.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// A request of more bytes takes turns with others, so that all of them together fit into memory.
pub const LARGE_LEN: usize = 1 << 20;

/// Answers requests until the client leaves or cannot be understood any more.
pub async fn converse(mut stream: UnixStream, floor: &Floor, waiting: &Waiting) -> io::Result<()> {
    let mut lines = Lines::new();
    loop {
        waiting.start();
        let received = timeout(REQUEST_TIME_MAX, receive(&mut stream, &mut lines, floor)).await??;
        let Some(Received { request, large }) = received else { return Ok(()) };
        let is_in_step = !matches!(
            request,
            Err(UapiError::UnknownOperation
                | UapiError::RequestTooLong
                | UapiError::Truncated
                | UapiError::EndlessLine)
        );
        match request {
            Ok(Request::Get) => {
                if let Err(error) = tell(&mut stream, floor).await? {
                    refuse(&mut stream, floor, &error).await?;
                }
            }
            Ok(Request::Set(settings)) => {
                waiting.stop();
                let result = apply(settings, floor).await;
                waiting.start();
                match result {
                    Ok(()) => answer(&mut stream, 0).await?,
                    Err(error) => refuse(&mut stream, floor, &error).await?,
                }
            }
            Err(error) => refuse(&mut stream, floor, &error).await?,
        }
        drop(large);
        if !is_in_step {
            return Ok(());
        }
    }
}

struct Received<'a> {
    request: Result<Request, UapiError>,
    /// Held until what was read is applied or forgotten.
    large: Option<SemaphorePermit<'a>>,
}

/// The next request, or `None` when the client has left instead of beginning one.
async fn receive<'a>(
    stream: &mut UnixStream,
    lines: &mut Lines,
    floor: &'a Floor,
) -> io::Result<Option<Received<'a>>> {
    let mut parser = RequestParser::default();
    let mut large = None;
    let request = loop {
        match lines.next_line() {
            Line::Complete(line) => {
                if let Some(request) = parser.push_line(line) {
                    break request;
                }
            }
            Line::TooLong => break Err(UapiError::EndlessLine),
            Line::Partial => {
                if large.is_none() && parser.request_len() > LARGE_LEN {
                    large = floor.for_large_request().await;
                }
                let read = stream.read(lines.space()).await?;
                if read == 0 && parser.is_at_start() && lines.is_empty() {
                    return Ok(None);
                }
                if read == 0 {
                    // Whoever is gone in the middle may have meant anything: a request without its end is not one.
                    break Err(UapiError::Truncated);
                }
                lines.filled(read);
                // A long request is one of many things this thread does.
                tokio::task::yield_now().await;
            }
        }
    };
    Ok(Some(Received { request, large }))
}

/// Sends the answer to a `get`, its last line included, unless the gateway is about to end.
async fn tell(stream: &mut UnixStream, floor: &Floor) -> io::Result<Result<(), UapiError>> {
    let _turn = floor.for_get().await;
    let patience = floor.patience();
    tokio::pin!(patience);
    let mut position = Some(Position::default());
    while let Some(from) = position {
        let (reply, chunk) = oneshot::channel();
        let _ = floor.commands.send(Command::Get(from, reply)).await;
        let Ok(chunk) = chunk.await else { return Ok(Err(UapiError::ShuttingDown)) };
        tokio::select! {
            written = stream.write_all(chunk.text.as_bytes()) => written?,
            () = &mut patience => return Err(io::ErrorKind::TimedOut.into()),
        }
        position = chunk.next;
    }
    Ok(Ok(()))
}

async fn apply(settings: Box<DeviceSettings>, floor: &Floor) -> Result<(), UapiError> {
    let _turn = floor.for_set().await;
    let (reply, result) = oneshot::channel();
    let _ = floor.commands.send(Command::Set(settings, reply)).await;
    result.await.unwrap_or(Err(UapiError::ShuttingDown))
}

async fn refuse(stream: &mut UnixStream, floor: &Floor, error: &UapiError) -> io::Result<()> {
    floor.log_refusal(error);
    answer(stream, error.errno()).await
}

async fn answer(stream: &mut UnixStream, errno: i32) -> io::Result<()> {
    // In one piece: some clients read once.
    let answer = format!("errno={errno}\n\n");
    timeout(ANSWER_TIME_MAX, stream.write_all(answer.as_bytes())).await?
}
