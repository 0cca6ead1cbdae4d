//! The answering side of the status socket.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::Status;

/// A client that does not read is dropped after this.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Writes the status to each client, one after the other, for as long as `requests` is open.
pub async fn serve(listener: UnixListener, requests: mpsc::Sender<oneshot::Sender<Status>>) {
    while !requests.is_closed() {
        match listener.accept().await {
            Ok((stream, _)) => match tokio::time::timeout(WRITE_MAX, answer(stream, &requests)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a status client went away"),
                Err(_) => debug!("a status client does not read"),
            },
            Err(error) => {
                warn!(%error, "cannot accept a status client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    requests: &mpsc::Sender<oneshot::Sender<Status>>,
) -> std::io::Result<()> {
    let (reply, status) = oneshot::channel();
    let _ = requests.send(reply).await;
    let Ok(status) = status.await else { return Ok(()) };
    let mut text = serde_json::to_vec(&status)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.shutdown().await
}
