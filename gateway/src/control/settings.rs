//! What an operator may set on a running gateway, whichever way it arrives.

use wireguard::DeviceChange;

/// One change of configuration, applied as a whole or not at all. What is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct DeviceSettings {
    /// Keys, peers and their allowed IPs.
    pub change: DeviceChange,
    /// UDP port to listen on; 0 lets the kernel choose.
    pub listen_port: Option<u16>,
    /// Mark of every outer packet that leaves through a socket (`SO_MARK`); 0 for none.
    pub fwmark: Option<u32>,
}
