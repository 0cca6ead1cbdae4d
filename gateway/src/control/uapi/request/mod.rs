//! The reading side: a request, line by line, into a change that is applied only once all of it is understood.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use ipnet::IpNet;
use wireguard::{AllowedIpAction, PeerChange, PresharedKey, PrivateKey, PrivateKeyChange, PublicKey};
use zeroize::Zeroizing;

use super::error::UapiError;
use super::hex::decode_key;
use crate::control::settings::DeviceSettings;

/// The longest line of the protocol is a key of 64 digits after its name; the rest is margin.
pub const LINE_LEN_MAX: usize = 256;
/// Room for 100,000 peers with all their keys and a few allowed IPs each (40 MB), for one peer with 255 × 256 × 2
/// allowed IPs (5 MB), and still a bound on what one client can make the gateway hold.
pub const REQUEST_LEN_MAX: usize = 64 << 20;

/// No key of the protocol is longer, and no secret is as short.
const KEY_NAME_LEN_MAX: usize = 32;

/// A whole request.
#[derive(Debug)]
pub enum Request {
    /// Tell everything.
    Get,
    /// Change something.
    Set(Box<DeviceSettings>),
}

/// Reads one request line by line. Feed it until it answers.
///
/// After a bad line it reads on to the empty line that ends the request, so that the next request on the same
/// connection is understood again; then it reports the first error.
#[derive(Debug, Default)]
pub struct RequestParser {
    operation: Option<Operation>,
    settings: Box<DeviceSettings>,
    line: usize,
    len: usize,
    error: Option<UapiError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Get,
    Set,
}

impl RequestParser {
    /// Takes the next line, without its newline. `Some` when the request is complete.
    ///
    /// [`UapiError::UnknownOperation`] and [`UapiError::RequestTooLong`] leave the stream at an unknown place:
    /// close it.
    pub fn push_line(&mut self, line: &[u8]) -> Option<Result<Request, UapiError>> {
        self.line += 1;
        self.len += line.len() + 1;
        if self.len > REQUEST_LEN_MAX {
            return Some(Err(UapiError::RequestTooLong));
        }
        let Some(operation) = self.operation else {
            self.operation = match line {
                b"get=1" => Some(Operation::Get),
                b"set=1" => Some(Operation::Set),
                _ => return Some(Err(UapiError::UnknownOperation)),
            };
            return None;
        };
        if line.is_empty() {
            return Some(self.finish(operation));
        }
        if self.error.is_none() {
            self.error = match operation {
                Operation::Get => Some(UapiError::TrailingGet),
                Operation::Set => self.set_line(line).err(),
            };
        }
        None
    }

    /// Bytes of the request so far.
    pub fn request_len(&self) -> usize {
        self.len
    }

    /// Whether nothing of a request was read yet, so that the end of the stream is a proper end.
    pub fn is_at_start(&self) -> bool {
        self.operation.is_none()
    }

    fn finish(&mut self, operation: Operation) -> Result<Request, UapiError> {
        match (self.error.take(), operation) {
            (Some(error), _) => Err(error),
            (None, Operation::Get) => Ok(Request::Get),
            (None, Operation::Set) => Ok(Request::Set(std::mem::take(&mut self.settings))),
        }
    }

    fn set_line(&mut self, line: &[u8]) -> Result<(), UapiError> {
        if line.len() > LINE_LEN_MAX {
            return Err(UapiError::LineTooLong { line: self.line });
        }
        let equals =
            line.iter().position(|byte| *byte == b'=').ok_or(UapiError::NoEquals { line: self.line })?;
        let key = &line[..equals];
        let Ok(value) = str::from_utf8(&line[equals + 1..]) else {
            return Err(UapiError::BadValue { line: self.line, key: "a key: it is not text" });
        };
        let known = if key == b"public_key" {
            let public_key = public_key(value);
            public_key.map(|key| self.settings.change.peers.push(PeerChange::new(key))).ok_or("public_key")
        } else if let Some(peer) = self.settings.change.peers.last_mut() {
            set_peer(peer, key, value)
        } else {
            set_device(&mut self.settings, key, value)
        };
        known.map_err(|key_of_bad_value| {
            if key_of_bad_value.is_empty() {
                UapiError::UnknownKey { line: self.line, key: nameable(key) }
            } else {
                UapiError::BadValue { line: self.line, key: key_of_bad_value }
            }
        })
    }
}

/// An unknown key as the log may have it. A secret in base64 ends in `=` and so looks like a key at first sight.
fn nameable(key: &[u8]) -> String {
    let is_word = key.len() <= KEY_NAME_LEN_MAX && key.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'_'));
    if is_word { String::from_utf8_lossy(key).into_owned() } else { "...".to_owned() }
}

/// Parses the one request `bytes` consists of.
///
/// # Errors
/// The first thing wrong with it; a request that lacks its final empty line is an unknown operation.
pub fn parse_request(bytes: &[u8]) -> Result<Request, UapiError> {
    let mut parser = RequestParser::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        if let Some(request) = parser.push_line(line) {
            return request;
        }
    }
    Err(UapiError::UnknownOperation)
}

/// The name of the key whose value is bad, or the empty string when the key itself is not known.
type BadKey = &'static str;
const UNKNOWN: BadKey = "";

fn set_device(settings: &mut DeviceSettings, key: &[u8], value: &str) -> Result<(), BadKey> {
    match key {
        b"private_key" => {
            let key = decode_key(value).ok_or("private_key")?;
            settings.change.private_key = if *key == [0; _] {
                PrivateKeyChange::Clear
            } else {
                PrivateKeyChange::Set(PrivateKey::from_bytes(*key))
            };
        }
        b"listen_port" => settings.listen_port = Some(number(value).ok_or("listen_port")?),
        b"fwmark" => settings.fwmark = Some(number(value).ok_or("fwmark")?),
        b"replace_peers" => {
            only_true(value).ok_or("replace_peers")?;
            settings.change.replace_peers = true;
        }
        _ => return Err(UNKNOWN),
    }
    Ok(())
}

fn set_peer(peer: &mut PeerChange, key: &[u8], value: &str) -> Result<(), BadKey> {
    match key {
        b"update_only" => {
            only_true(value).ok_or("update_only")?;
            peer.update_only = true;
        }
        b"remove" => {
            only_true(value).ok_or("remove")?;
            peer.remove = true;
        }
        b"replace_allowed_ips" => {
            only_true(value).ok_or("replace_allowed_ips")?;
            peer.replace_allowed_ips = true;
            // What stood before this line is replaced too, as when each line is applied in turn.
            peer.allowed_ips.clear();
        }
        b"preshared_key" => {
            let key = decode_key(value).ok_or("preshared_key")?;
            peer.preshared_key = Some(PresharedKey::from_slice(&key));
        }
        b"endpoint" => peer.endpoint = Some(endpoint(value).ok_or("endpoint")?),
        b"persistent_keepalive_interval" => {
            peer.persistent_keepalive = Some(number(value).ok_or("persistent_keepalive_interval")?);
        }
        b"allowed_ip" => peer.allowed_ips.push(allowed_ip(value).ok_or("allowed_ip")?),
        b"protocol_version" => {
            (value == "1").then_some(()).ok_or("protocol_version")?;
        }
        _ => return Err(UNKNOWN),
    }
    Ok(())
}

fn public_key(value: &str) -> Option<PublicKey> {
    decode_key(value).map(|key: Zeroizing<_>| PublicKey::from_bytes(*key))
}

fn only_true(value: &str) -> Option<()> {
    (value == "true").then_some(())
}

/// Plain decimal digits: `FromStr` alone would take a leading `+`.
pub(crate) fn number<N: FromStr>(value: &str) -> Option<N> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

/// `ip:port` or `[ip6]:port`; a link-local address may name its interface (`%eth0`), as `wg` writes it.
pub(crate) fn endpoint(value: &str) -> Option<SocketAddr> {
    if let Ok(endpoint) = value.parse() {
        return Some(endpoint);
    }
    let (address, port) = value.strip_prefix('[')?.split_once("]:")?;
    let (address, interface) = address.split_once('%')?;
    let interface_index = interface_index(interface)?;
    Some(SocketAddrV6::new(address.parse().ok()?, number(port)?, 0, interface_index).into())
}

fn interface_index(name: &str) -> Option<u32> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(socket, name).ok()
}

fn allowed_ip(value: &str) -> Option<(IpNet, AllowedIpAction)> {
    match value.strip_prefix('-') {
        Some(prefix) => Some((prefix_of(prefix)?, AllowedIpAction::Remove)),
        None => Some((prefix_of(value)?, AllowedIpAction::Add)),
    }
}

fn prefix_of(value: &str) -> Option<IpNet> {
    let (address, prefix_len) = value.split_once('/')?;
    let prefix = IpNet::new(address.parse::<IpAddr>().ok()?, number(prefix_len)?).ok()?;
    Some(prefix.trunc())
}

#[cfg(test)]
mod tests;
