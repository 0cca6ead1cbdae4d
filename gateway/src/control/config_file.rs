//! The configuration file of `wg setconf`, read at start so that a gateway can come up with its peers.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use tracing::warn;
use wireguard::{
    AllowedIpAction, DeviceChange, KEY_LEN, PeerChange, PresharedKey, PrivateKey, PrivateKeyChange, PublicKey,
};
use zeroize::Zeroizing;

use super::settings::DeviceSettings;
use super::uapi::request::{endpoint, number};

/// A file that holds more than this is not a configuration.
const FILE_LEN_MAX: u64 = 64 << 20;
/// Keys that only `wg-quick` knows.
const WG_QUICK_KEYS: [&str; 9] =
    ["address", "dns", "mtu", "table", "preup", "postup", "predown", "postdown", "saveconfig"];

/// What is wrong with a configuration file, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {reason}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ConfigFileError {
    path: PathBuf,
    /// From 1; `None` when it is the file that is wrong, not a line of it.
    line: Option<usize>,
    reason: String,
}

/// Reads `path` as `wg setconf` would: the peers of the file replace all others. Host names are resolved once.
///
/// # Errors
/// The file cannot be read, or a line is not understood: then nothing of it counts.
pub fn read(path: &Path) -> Result<DeviceSettings, ConfigFileError> {
    let error = |line, reason| ConfigFileError { path: path.to_owned(), line, reason };
    let metadata = fs::metadata(path).map_err(|cause| error(None, format!("cannot read it: {cause}")))?;
    if metadata.len() > FILE_LEN_MAX {
        return Err(error(
            None,
            format!("is larger than {FILE_LEN_MAX} bytes: this is no WireGuard configuration"),
        ));
    }
    if metadata.mode() & 0o004 != 0 {
        warn!(path = %path.display(), "the file is world readable: chmod 600 it, it may hold keys");
    }
    let text =
        Zeroizing::new(fs::read(path).map_err(|cause| error(None, format!("cannot read it: {cause}")))?);
    let text = str::from_utf8(&text).map_err(|_| error(None, "is not text".to_owned()))?;
    parse(text).map_err(|(line, reason)| error(Some(line), reason))
}

/// The pure part of [`read`], but for host names.
///
/// # Errors
/// The line of the error from 1, and what is wrong with it.
pub fn parse(text: &str) -> Result<DeviceSettings, (usize, String)> {
    let change = DeviceChange { replace_peers: true, ..DeviceChange::default() };
    let mut parser =
        Parser { settings: DeviceSettings { change, ..DeviceSettings::default() }, section: Section::None };
    for (index, line) in text.lines().enumerate() {
        // As `wg` does: a comment may follow anything, and blanks mean nothing anywhere.
        let line = line.split('#').next().unwrap_or_default();
        let line: Zeroizing<String> = Zeroizing::new(line.chars().filter(|c| !c.is_whitespace()).collect());
        if !line.is_empty() {
            parser.line(index + 1, &line).map_err(|reason| (index + 1, reason))?;
        }
    }
    parser.end_section()?;
    Ok(parser.settings)
}

#[derive(Debug)]
enum Section {
    None,
    Interface,
    /// A peer whose public key may still come.
    Peer {
        line: usize,
        peer: Box<PeerChange>,
        has_public_key: bool,
    },
}

struct Parser {
    settings: DeviceSettings,
    section: Section,
}

impl Parser {
    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.eq_ignore_ascii_case("[interface]") {
            self.end_section().map_err(|(_, reason)| reason)?;
            self.section = Section::Interface;
            return Ok(());
        }
        if line.eq_ignore_ascii_case("[peer]") {
            self.end_section().map_err(|(_, reason)| reason)?;
            let mut peer = Box::new(PeerChange::new(PublicKey::from_bytes([0; KEY_LEN])));
            peer.replace_allowed_ips = true;
            self.section = Section::Peer { line: number, peer, has_public_key: false };
            return Ok(());
        }
        let (key, value) = line.split_once('=').ok_or("neither a section nor KEY = VALUE")?;
        let key = key.to_ascii_lowercase();
        match &mut self.section {
            Section::None => Err(format!("{key} stands outside of [Interface] and [Peer]")),
            Section::Interface => interface_line(&mut self.settings, &key, value),
            Section::Peer { peer, has_public_key, .. } => {
                *has_public_key |= key == "publickey";
                peer_line(peer, &key, value)
            }
        }
    }

    fn end_section(&mut self) -> Result<(), (usize, String)> {
        if let Section::Peer { line, peer, has_public_key } =
            std::mem::replace(&mut self.section, Section::None)
        {
            if !has_public_key {
                return Err((line, format!("the [Peer] of line {line} has no PublicKey")));
            }
            self.settings.change.peers.push(*peer);
        }
        Ok(())
    }
}

fn interface_line(settings: &mut DeviceSettings, key: &str, value: &str) -> Result<(), String> {
    match key {
        "privatekey" => {
            let key = PrivateKey::from_bytes(*key_of(value, "PrivateKey")?);
            settings.change.private_key = PrivateKeyChange::Set(key);
        }
        "listenport" => {
            settings.listen_port = Some(number(value).ok_or_else(|| bad("ListenPort", value, "0..65535"))?);
        }
        "fwmark" => {
            settings.fwmark =
                Some(fwmark(value).ok_or_else(|| bad("FwMark", value, "off, a number or 0xHEX"))?);
        }
        _ if WG_QUICK_KEYS.contains(&key) => {
            return Err(format!("{key} is for wg-quick: give the output of `wg-quick strip` instead"));
        }
        _ => return Err(format!("unknown key {key:?} in [Interface]")),
    }
    Ok(())
}

fn peer_line(peer: &mut PeerChange, key: &str, value: &str) -> Result<(), String> {
    match key {
        "publickey" => peer.public_key = PublicKey::from_bytes(*key_of(value, "PublicKey")?),
        "presharedkey" => {
            peer.preshared_key = Some(PresharedKey::from_slice(&*key_of(value, "PresharedKey")?));
        }
        "endpoint" => peer.endpoint = Some(resolve(value)?),
        "persistentkeepalive" => {
            let interval = if value.eq_ignore_ascii_case("off") { Some(0) } else { number(value) };
            peer.persistent_keepalive =
                Some(interval.ok_or_else(|| bad("PersistentKeepalive", value, "off or 0..65535"))?);
        }
        "allowedips" => {
            for prefix in value.split(',').filter(|_| !value.is_empty()) {
                peer.allowed_ips
                    .push(allowed_ip(prefix).ok_or_else(|| bad("AllowedIPs", prefix, "ADDRESS[/LEN]"))?);
            }
        }
        _ => return Err(format!("unknown key {key:?} in [Peer]")),
    }
    Ok(())
}

fn bad(key: &str, value: &str, wanted: impl fmt::Display) -> String {
    format!("{key} is {value:?}, but it takes {wanted}")
}

/// The value may be a secret, so the error does not repeat it.
fn key_of(value: &str, name: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, String> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    // The decoder wants room for what 44 characters could hold at most.
    let mut decoded = Zeroizing::new([0; KEY_LEN + 1]);
    match STANDARD.decode_slice(value, decoded.as_mut_slice()) {
        Ok(KEY_LEN) if value.len() == 44 => {
            key.copy_from_slice(&decoded[..KEY_LEN]);
            Ok(key)
        }
        _ => Err(format!(
            "{name} is not a key: 32 bytes in base64, which are 44 characters, as `wg genkey` prints"
        )),
    }
}

fn fwmark(value: &str) -> Option<u32> {
    if value.eq_ignore_ascii_case("off") {
        return Some(0);
    }
    match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None => number(value),
    }
}

fn allowed_ip(value: &str) -> Option<(IpNet, AllowedIpAction)> {
    let (action, prefix) = match value.as_bytes().first()? {
        b'-' => (AllowedIpAction::Remove, &value[1..]),
        b'+' => (AllowedIpAction::Add, &value[1..]),
        _ => (AllowedIpAction::Add, value),
    };
    let prefix = match prefix.split_once('/') {
        Some((address, len)) => IpNet::new(address.parse().ok()?, number(len)?).ok()?,
        None => IpNet::from(prefix.parse::<IpAddr>().ok()?),
    };
    Some((prefix.trunc(), action))
}

fn resolve(value: &str) -> Result<SocketAddr, String> {
    if let Some(address) = endpoint(value) {
        return Ok(address);
    }
    let has_port = value.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains([':', '[', ']']) && number::<u16>(port).is_some()
    });
    if !has_port {
        return Err(bad("Endpoint", value, "HOST:PORT, IPV4:PORT or [IPV6]:PORT"));
    }
    let mut addresses = value.to_socket_addrs().map_err(|error| {
        format!("cannot resolve {value:?}: {error}; use an address, or set it later with `wg set`")
    })?;
    addresses.next().ok_or_else(|| format!("{value:?} has no address"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "WAmgVYXkbT2bCtdcDwolI88/iVi/aV3/PHcUBTQSYmo=";

    #[test]
    fn a_file_is_read_as_wg_setconf_reads_it() {
        let settings = parse(&format!(
            "# ours\n[Interface]\nprivatekey = {KEY} # secret\nLISTENPORT=51820\nFwMark = 0xca6c\n\n\
             [Peer]\n PublicKey = {KEY}\nPresharedKey={KEY}\nAllowedIPs = 10.0.0.1, fd00::/64\nAllowedIPs=192.0.2.9/24\n\
             Endpoint = [2001:db8::1]:7\nPersistentKeepalive = off\n[peer]\nPublicKey={KEY}\nAllowedIPs=\n"
        ))
        .unwrap();
        assert_eq!((settings.listen_port, settings.fwmark), (Some(51820), Some(0xca6c)));
        assert!(settings.change.replace_peers);
        assert!(matches!(settings.change.private_key, PrivateKeyChange::Set(_)));
        let [peer, bare] = settings.change.peers.as_slice() else { panic!("two peers") };
        let prefixes: Vec<String> = peer.allowed_ips.iter().map(|(prefix, _)| prefix.to_string()).collect();
        assert_eq!(prefixes, ["10.0.0.1/32", "fd00::/64", "192.0.2.0/24"]);
        assert_eq!(peer.endpoint, Some("[2001:db8::1]:7".parse().unwrap()));
        assert_eq!(peer.persistent_keepalive, Some(0));
        assert_eq!(peer.public_key.to_string(), KEY);
        assert!(peer.replace_allowed_ips && bare.allowed_ips.is_empty());
    }

    #[test]
    fn each_bad_line_is_named() {
        let table = [
            ("[Interface]\nAddress = 10.0.0.1/24\n".to_owned(), 2, "wg-quick strip"),
            ("[Interface]\nColour = blue\n".to_owned(), 2, "unknown key \"colour\""),
            ("ListenPort = 1\n".to_owned(), 1, "outside of [Interface]"),
            ("[Interface]\nListenPort = 65536\n".to_owned(), 2, "0..65535"),
            ("[Interface]\nFwMark = 0x\n".to_owned(), 2, "FwMark"),
            ("[Interface]\nFwMark = 0x+1\n".to_owned(), 2, "FwMark"),
            ("[Interface]\nnonsense\n".to_owned(), 2, "neither a section"),
            (format!("[Interface]\nPrivateKey = {}\n", &KEY[1..]), 2, "not a key"),
            (format!("[Interface]\nPrivateKey = {}\n", &KEY[..43]), 2, "not a key"),
            (format!("[Interface]\nPrivateKey = {KEY}{KEY}\n"), 2, "not a key"),
            ("\n[Peer]\nAllowedIPs = 10.0.0.0/8\n".to_owned(), 2, "has no PublicKey"),
            (format!("[Peer]\nPublicKey={KEY}\nAllowedIPs = 10.0.0.0/33\n"), 3, "AllowedIPs"),
            (format!("[Peer]\nPublicKey={KEY}\nAllowedIPs = 10.0.0.0/8,\n"), 3, "AllowedIPs"),
            (format!("[Peer]\nPublicKey={KEY}\nEndpoint = 192.0.2.1\n"), 3, "HOST:PORT"),
            (format!("[Peer]\nPublicKey={KEY}\nEndpoint = host.invalid:1\n"), 3, "cannot resolve"),
            (format!("[Peer]\nPublicKey={KEY}\nPersistentKeepalive = 65536\n"), 3, "PersistentKeepalive"),
        ];
        for (text, line, reason) in table {
            let (at, error) = parse(&text).expect_err(&text);
            // A peer without a key is only noticed at its end; its own line is named there.
            assert!(
                (at == line || error.contains(&format!("line {line}"))) && error.contains(reason),
                "{text}: {at}: {error}"
            );
            assert!(!error.contains(&KEY[1..40]), "{error} tells a key");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nonexistent/wg.conf")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/wg.conf: cannot read it"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(lines in proptest::collection::vec(
            "(\\[Peer\\]|\\[Interface\\]|(PublicKey|AllowedIPs|FwMark|Endpoint|ListenPort) ?= ?[-+0-9a-f:.,/é=]{0,50})", 0..8)) {
            let _ = parse(&lines.join("\n"));
        }
    }
}
