//! An XDP program that gives all IPv4 UDP packets of a queue to its socket: for load generators and plain forwarding.
//! Not part of the gateway, which steers by what packets are.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod freestanding;
#[cfg(target_arch = "bpf")]
mod packet;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::xdp_action,
        macros::{map, xdp},
        maps::XskMap,
        programs::XdpContext,
    };
    use gateway_ebpf::{
        layout,
        parse::{Bytes as _, ETHERNET_LEN, PROTOCOL_UDP},
    };

    use crate::packet::Packet;

    const ETHERTYPE_OFFSET: usize = 12;
    const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
    const PROTOCOL_OFFSET: usize = ETHERNET_LEN + 9;

    /// By queue.
    #[map]
    static REDIRECT: XskMap = XskMap::with_max_entries(layout::MAX_QUEUES, 0);

    /// ARP and all else stays the kernel's: it answers for the addresses of the interface.
    #[xdp]
    pub fn wgx_redirect(context: XdpContext) -> u32 {
        let packet = Packet::new(&context);
        if packet.read(ETHERTYPE_OFFSET) != Some(ETHERTYPE_IPV4)
            || packet.read(PROTOCOL_OFFSET) != Some([PROTOCOL_UDP])
        {
            return xdp_action::XDP_PASS;
        }
        REDIRECT
            .redirect(context.rx_queue_index(), u64::from(xdp_action::XDP_PASS))
            .unwrap_or(xdp_action::XDP_PASS)
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("redirect is an XDP program: build it with `cargo xtask build-ebpf`");
    std::process::exit(1);
}
