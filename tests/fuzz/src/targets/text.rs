//! Files and answers that are text: WireGuard's configuration, our options, and the status of another gateway.

use std::net::SocketAddr;

use gateway::{
    config::Options,
    control::{config_file, status::Status},
};
use wireguard::{Device, Now};

/// Reads the same bytes as each of them.
pub fn run(data: &[u8]) {
    if let Ok(status) = serde_json::from_slice::<Status>(data) {
        let text = serde_json::to_string(&status).expect("a status is JSON");
        let again: Status = serde_json::from_str(&text).expect("our own status is understood");
        assert_eq!(serde_json::to_string(&again).expect("a status is JSON"), text);
    }
    let Ok(text) = str::from_utf8(data) else { return };
    let _ = toml::from_str::<Options>(text);
    if text.lines().any(names_a_host) {
        return;
    }
    match config_file::parse(text) {
        Ok(settings) => {
            let mut device = Device::new([7; 32]);
            device.apply(settings.change, Now::default()).expect("few peers");
        }
        Err((line, reason)) => {
            assert!(line <= text.lines().count() + 1, "line {line} of {}", text.lines().count());
            assert!(!reason.is_empty());
        }
    }
}

/// Names are looked up in the network, which is not what is tested here.
fn names_a_host(line: &str) -> bool {
    let line: String = line.to_lowercase().chars().filter(|c| !c.is_whitespace()).collect();
    line.strip_prefix("endpoint=").is_some_and(|value| value.parse::<SocketAddr>().is_err())
}
