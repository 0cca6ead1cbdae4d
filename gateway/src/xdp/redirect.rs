//! The other XDP program: all IPv4 UDP packets of a queue to its socket, whatever they are. For load generators and
//! for plain forwarding to compare with; `wgx` does not use it.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::{
    Ebpf,
    maps::XskMap,
    programs::{Xdp, XdpMode, xdp::XdpLink},
};
use gateway_ebpf::layout;

use super::{Error, Result, error, object};

/// What `cargo xtask build-ebpf` built beside the steering program.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WGX_REDIRECT_OBJECT"));

/// The program on one interface. Dropping it detaches it.
pub struct Redirect {
    // Before the program: detached first.
    _link: XdpLink,
    _ebpf: Ebpf,
}

impl Redirect {
    /// Attaches the program to an interface in the driver, and gives each queue named in `sockets` to its socket. Other
    /// queues, and packets of other protocols, stay the kernel's.
    ///
    /// # Errors
    ///
    /// Missing capabilities, another program on the interface, a driver without native XDP, or no `AF_XDP` socket.
    pub fn attach(interface: &str, interface_index: u32, sockets: &[(u32, BorrowedFd<'_>)]) -> Result<Self> {
        object::unlock_memory();
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| Error::object(&error))?;
        let map = ebpf.map_mut(layout::REDIRECT).ok_or(Error::Foreign { missing: layout::REDIRECT })?;
        let mut by_queue = XskMap::try_from(map).map_err(|error| Error::map(layout::REDIRECT, &error))?;
        for &(queue, socket) in sockets {
            by_queue.set(queue, socket.as_raw_fd(), 0).map_err(|error| Error::Socket {
                interface: interface.to_owned(),
                queue,
                cause: error::chain(&error),
            })?;
        }
        let name = layout::REDIRECT_PROGRAM;
        let program = ebpf.program_mut(name).ok_or(Error::Foreign { missing: name })?;
        let program: &mut Xdp = program.try_into().map_err(|error| Error::program(&error))?;
        program.load().map_err(|error| Error::program(&error))?;
        let link = program
            .attach_to_if_index(interface_index, XdpMode::Driver)
            .and_then(|id| program.take_link(id))
            .map_err(|error| {
                error::hopeless(interface, &error).unwrap_or_else(|| Error::AttachDriver {
                    interface: interface.to_owned(),
                    cause: error::chain(&error),
                })
            })?;
        Ok(Self { _link: link, _ebpf: ebpf })
    }
}
