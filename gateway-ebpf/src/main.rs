//! The XDP program: asks `steer` what a frame is and turns the answer into an action and a counter.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod freestanding;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod tables;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
    use gateway_ebpf::{Reason, steer};

    use crate::{packet::Packet, tables};

    /// Steers or passes, never drops: a frame that we do not want may still be the kernel's.
    #[xdp]
    pub fn wgx_steer(context: XdpContext) -> u32 {
        let Some(interface) = tables::interface(context.ingress_ifindex() as u32) else {
            return xdp_action::XDP_PASS;
        };
        let mut reason = steer::decide(&Packet::new(&context), interface, &tables::Maps);
        let action = match reason {
            Reason::Data | Reason::Inner => tables::redirect(interface.slot, context.rx_queue_index()),
            _ => xdp_action::XDP_PASS,
        };
        if action != xdp_action::XDP_REDIRECT {
            reason = reason.without_socket();
        }
        tables::count(interface.slot, reason);
        // The number, not the name: a table of strings is made of pointers, which a BPF object cannot hold.
        #[cfg(feature = "trace")]
        aya_log_ebpf::debug!(&context, "slot {} reason {}", interface.slot, reason as u32);
        action
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("gateway-ebpf is an XDP program: build it with `cargo xtask build-ebpf`, `wgx` loads it");
    std::process::exit(1);
}
