//! The only part of the check that touches the interface.

use anyhow::Result;

use crate::{
    topology::Interface,
    xdp::{AttachMode, Role, Steering},
};

/// Attaches the program, which steers nothing without a role, and detaches it again; the name of the mode.
pub fn probe(interface: &Interface) -> Result<String> {
    let mut steering = Steering::load()?;
    let role =
        Role { uplink: false, downlink: false, mac: interface.mac.unwrap_or_default(), mtu: interface.mtu };
    let mode = match steering.attach(interface.index, &interface.name, role)? {
        AttachMode::Driver => "driver",
        AttachMode::Generic => "generic",
    };
    Ok(mode.to_owned())
}
