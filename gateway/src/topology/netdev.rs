//! Which kinds of XDP a driver says it can do, over the kernel's `netdev` netlink family (6.3 and later).
//!
//! Numbers: `include/uapi/linux/netdev.h`.

use std::io;

use netlink_packet_core::DefaultNla;
use serde::Serialize;

use super::netlink::{Family, attribute, unsigned};

const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;

/// What the driver implements, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one field per bit of the kernel")]
pub struct XdpFeatures {
    /// Runs XDP programs in the driver.
    pub driver_mode: bool,
    /// Redirects packets, which `AF_XDP` sockets need.
    pub redirect: bool,
    /// Lets `AF_XDP` sockets receive into and send from their own memory.
    pub zero_copy: bool,
    /// Passes frames of several buffers to XDP programs (jumbo frames).
    pub multi_buffer: bool,
}

impl XdpFeatures {
    /// From the bits of `enum netdev_xdp_act`.
    pub fn from_bits(bits: u64) -> Self {
        let has = |bit: u32| bits & (1 << bit) != 0;
        Self { driver_mode: has(0), redirect: has(1), zero_copy: has(3), multi_buffer: has(5) }
    }
}

/// The features of the interface; `None` when the kernel is too old to tell.
///
/// # Errors
///
/// Whatever the kernel says, except that it has no such family.
pub fn xdp_features(index: u32) -> io::Result<Option<XdpFeatures>> {
    let answer = Family::open("netdev").and_then(|mut family| {
        family.call(DEV_GET, &[DefaultNla::new(DEV_IFINDEX, index.to_ne_bytes().to_vec())])
    });
    match answer {
        Ok(reply) => Ok(attribute(&reply, DEV_XDP_FEATURES).and_then(unsigned).map(XdpFeatures::from_bits)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOENT)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_copy_is_a_bit_of_its_own() {
        let copy_only = XdpFeatures::from_bits(0b0010_0111);
        assert!(
            copy_only.driver_mode && copy_only.redirect && !copy_only.zero_copy && copy_only.multi_buffer
        );
        assert!(XdpFeatures::from_bits(0b1000).zero_copy);
    }
}
