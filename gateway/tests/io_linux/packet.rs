//! A packet socket: what really is on a wire.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

/// EtherType for local experiments (IEEE 802): nothing else on the wire has it.
pub const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

/// Sees all frames that any interface of the namespace receives.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    pub fn open() -> Self {
        let all = Protocol::from_raw(std::num::NonZeroU32::new(u32::from(0x0003_u16.to_be())).unwrap());
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(all)).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20).unwrap();
        Self(socket)
    }

    /// Receives until `count` of our frames came or none came for a second.
    pub fn receive(&self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut deadline = Instant::now() + Duration::from_secs(1);
        let mut buffer = vec![0; 65_536];
        while frames.len() < count && Instant::now() < deadline {
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).unwrap();
            while let Ok((len, _)) = recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                if buffer[12..14] == ETHER_TYPE {
                    frames.push(buffer[..len].to_vec());
                    deadline = Instant::now() + Duration::from_secs(1);
                }
            }
        }
        frames
    }
}

/// A frame of `len` bytes from `va` to `vb` that carries `number`.
pub fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0x0b, 2, 0, 0, 0, 0, 0x0a];
    frame.extend(ETHER_TYPE);
    frame.extend(number.to_be_bytes());
    frame.resize(len, number as u8);
    frame
}
