//! What an implementation says about its one peer, read from its UAPI socket.
//!
//! Not by `wg show`: boringtun gives the time since the handshake in place of its date, so the first second
//! after a handshake reads as "never" there.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// One peer as its UAPI shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether there was a handshake.
    pub has_handshake: bool,
    /// Where it is thought to be.
    pub endpoint: Option<SocketAddr>,
    /// Bytes received, by the implementation's own idea of what counts.
    pub rx_bytes: u64,
    /// Bytes sent, likewise.
    pub tx_bytes: u64,
    /// The allowed IPs, in the order they came.
    pub allowed_ips: Vec<String>,
    /// The interval in seconds; 0 is off.
    pub persistent_keepalive: u16,
}

impl State {
    /// Asks the socket of `interface`, whose device has one peer.
    pub fn read(interface: &str) -> Result<Self> {
        let path = format!("/var/run/wireguard/{interface}.sock");
        let mut socket = UnixStream::connect(&path).with_context(|| format!("{path} cannot be asked"))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(b"get=1\n\n")?;
        let mut answer = String::new();
        let mut buffer = [0; 4096];
        // Not to the end of the stream: some serve the next operation on the same connection.
        while !answer.ends_with("\n\n") {
            let len = socket.read(&mut buffer).with_context(|| format!("{path} does not answer"))?;
            ensure!(len > 0, "{path} closed before its answer was complete");
            answer.push_str(std::str::from_utf8(&buffer[..len])?);
        }
        Self::parse(&answer)
    }

    /// Reads the answer to `get=1`. Never shows it: it has keys.
    fn parse(answer: &str) -> Result<Self> {
        let mut state = Self::default();
        let mut peer_count = 0;
        for line in answer.lines().filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').context("a line of the UAPI without `=`")?;
            match key {
                "errno" => ensure!(value == "0", "the UAPI says errno={value}"),
                "public_key" => peer_count += 1,
                "endpoint" => state.endpoint = Some(value.parse().context("endpoint")?),
                "last_handshake_time_sec" | "last_handshake_time_nsec" => {
                    state.has_handshake |= value.parse::<u64>().context("handshake time")? > 0;
                }
                "rx_bytes" => state.rx_bytes = value.parse().context("rx_bytes")?,
                "tx_bytes" => state.tx_bytes = value.parse().context("tx_bytes")?,
                "allowed_ip" => state.allowed_ips.push(value.to_owned()),
                "persistent_keepalive_interval" => {
                    state.persistent_keepalive = value.parse().context("persistent keepalive")?;
                }
                _ => {}
            }
        }
        ensure!(peer_count == 1, "the device has {peer_count} peers");
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_second_after_a_handshake_counts() {
        let answer = "public_key=00\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=7\nrx_bytes=92\n\
                      endpoint=[2001:db8::1]:5\nerrno=0\n\n";
        let state = State::parse(answer).unwrap();
        assert!(state.has_handshake);
        assert_eq!((state.rx_bytes, state.endpoint.unwrap().port()), (92, 5));
    }

    #[test]
    fn an_error_of_the_device_is_an_error() {
        assert!(State::parse("public_key=00\nerrno=-22\n\n").is_err());
        assert!(State::parse("errno=0\n\n").is_err());
    }
}
