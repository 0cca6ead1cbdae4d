//! The conversation on one connection: requests in, answers out, until the client leaves.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{debug, warn};
use zeroize::{Zeroize, Zeroizing};

use super::error::UapiError;
use super::request::{LINE_LEN_MAX, Request, RequestParser};
use crate::control::settings::DeviceSettings;

/// Clients talked to at the same time; more of them wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// A client that says nothing for so long is not coming back.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// What is read at once.
const CHUNK_LEN: usize = 16 << 10;

/// A request for the control loop, which alone may touch the device.
#[derive(Debug)]
pub enum Command {
    /// Answer with everything.
    Get(oneshot::Sender<Zeroizing<String>>),
    /// Apply all or nothing.
    Set(Box<DeviceSettings>, oneshot::Sender<Result<(), UapiError>>),
}

/// Accepts clients and passes their requests on, for as long as `commands` is open.
pub async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) {
    let slots = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed, so acquiring cannot fail.
    while let Ok(slot) = std::sync::Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let commands = commands.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, commands).await {
                        debug!(%error, "a UAPI client went away");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors: the pause keeps this from becoming a busy loop.
                warn!(%error, "cannot accept a UAPI client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        if commands.is_closed() {
            return;
        }
    }
}

/// Talks with one client until it leaves.
///
/// # Errors
/// It left in the middle of a request, was silent for a minute, or does not take its answers.
pub async fn converse<S>(mut stream: S, commands: mpsc::Sender<Command>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut lines = Lines::new();
    let mut parser = RequestParser::default();
    loop {
        let answered = match lines.next_line() {
            Line::Complete(line) => parser.push_line(line),
            Line::TooLong => Some(Err(UapiError::LineTooLong { line: 0 })),
            Line::Partial => {
                let read = tokio::time::timeout(IDLE_MAX, stream.read(lines.space())).await??;
                if read == 0 {
                    // A request without its end is not applied.
                    return if parser.is_at_start() {
                        Ok(())
                    } else {
                        Err(io::ErrorKind::UnexpectedEof.into())
                    };
                }
                lines.filled(read);
                continue;
            }
        };
        let Some(request) = answered else { continue };
        let is_in_step = !matches!(
            request,
            Err(UapiError::UnknownOperation | UapiError::RequestTooLong | UapiError::LineTooLong { line: 0 })
        );
        let answer = answer(request, &commands).await;
        tokio::time::timeout(IDLE_MAX, stream.write_all(answer.as_bytes())).await??;
        if !is_in_step {
            return Ok(());
        }
        parser = RequestParser::default();
    }
}

async fn answer(request: Result<Request, UapiError>, commands: &mpsc::Sender<Command>) -> Zeroizing<String> {
    let result = match request {
        Ok(Request::Get) => {
            let (reply, answer) = oneshot::channel();
            let _ = commands.send(Command::Get(reply)).await;
            match answer.await {
                Ok(text) => return text,
                Err(_) => Err(UapiError::ShuttingDown),
            }
        }
        Ok(Request::Set(settings)) => {
            let (reply, answer) = oneshot::channel();
            let _ = commands.send(Command::Set(settings, reply)).await;
            answer.await.unwrap_or(Err(UapiError::ShuttingDown))
        }
        Err(error) => Err(error),
    };
    let errno = result.map_or_else(
        |error| {
            warn!(%error, "refused a UAPI request");
            error.errno()
        },
        |()| 0,
    );
    Zeroizing::new(format!("errno={errno}\n\n"))
}

/// Cuts a stream into lines within one fixed buffer, which is erased behind the reader: the lines are keys.
struct Lines {
    buffer: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
}

enum Line<'a> {
    /// A line without its newline.
    Complete(&'a [u8]),
    /// Not a whole line yet: read more.
    Partial,
    /// No newline within the longest line there is: what follows cannot be made sense of.
    TooLong,
}

impl Lines {
    fn new() -> Self {
        Self { buffer: Zeroizing::new(vec![0; CHUNK_LEN]), start: 0, end: 0 }
    }

    fn next_line(&mut self) -> Line<'_> {
        let pending = &self.buffer[self.start..self.end];
        match pending.iter().position(|byte| *byte == b'\n') {
            Some(len) => {
                let start = self.start;
                self.start += len + 1;
                Line::Complete(&self.buffer[start..start + len])
            }
            None if pending.len() > LINE_LEN_MAX => Line::TooLong,
            None => Line::Partial,
        }
    }

    /// Where to read to: never empty, since a pending line is at most [`LINE_LEN_MAX`] long.
    fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.buffer[self.end..].zeroize();
        &mut self.buffer[self.end..]
    }

    fn filled(&mut self, len: usize) {
        self.end += len;
    }
}

#[cfg(test)]
mod tests;
