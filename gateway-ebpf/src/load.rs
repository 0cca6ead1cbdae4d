//! The load generator inside the kernel: an XDP program that makes frames out of test runs (`BPF_PROG_TEST_RUN` with
//! `BPF_F_TEST_XDP_LIVE_FRAMES`), and a classifier that takes down what arrives and frees it.
//!
//! What both cost is paid once per frame and without a socket, a copy for user space or a system call, so that one
//! processor sends more than a gateway on another can take, and receiving costs whoever sends as little as a wire would.
//! Not part of the gateway.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::inline_always,
        reason = "a call per step loses the verifier the bounds of what was checked"
    )
)]

#[cfg(target_arch = "bpf")]
mod freestanding;
#[cfg(target_arch = "bpf")]
mod load_maps;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };

    use gateway_ebpf::{
        load_layout::TURNS,
        parse::{ETHERNET_LEN, PROTOCOL_UDP},
    };

    use crate::load_maps;

    const ETHERTYPE_OFFSET: usize = 12;
    const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
    const PROTOCOL_OFFSET: usize = ETHERNET_LEN + 9;

    /// Sends the next departure as soon as it is due. What is given back is no frame, only a turn of waiting.
    #[xdp]
    pub fn wgx_generate(context: XdpContext) -> u32 {
        let Some(sending) = load_maps::sending() else { return xdp_action::XDP_ABORTED };
        if sending.next >= sending.count || sending.ended != 0 {
            return xdp_action::XDP_DROP;
        }
        let Some(departure) = load_maps::departure(sending.next) else { return xdp_action::XDP_ABORTED };
        let due_ns = sending.start_ns + departure.due_ns;
        let mut now = load_maps::now_ns();
        let mut turn = 0;
        while now < due_ns {
            if turn == TURNS {
                return xdp_action::XDP_DROP;
            }
            turn += 1;
            now = load_maps::now_ns();
        }
        if now > sending.deadline_ns {
            sending.ended = 1;
            return xdp_action::XDP_DROP;
        }
        sending.next += 1;
        departure.sent_ns = now;
        let action = match load_maps::write_frame(&context, departure) {
            true => load_maps::send(departure.target),
            false => xdp_action::XDP_DROP,
        };
        if action != xdp_action::XDP_REDIRECT {
            sending.failed += 1;
        }
        action
    }

    /// What arrives at interface 0.
    #[classifier]
    pub fn wgx_capture_0(context: TcContext) -> i32 {
        capture(&context, 0)
    }

    /// What arrives at interface 1.
    #[classifier]
    pub fn wgx_capture_1(context: TcContext) -> i32 {
        capture(&context, 1)
    }

    /// Takes down IPv4 UDP packets and frees them. ARP and all else stays the kernel's.
    #[inline(always)]
    fn capture(context: &TcContext, interface: u16) -> i32 {
        let is_udp = context.load(ETHERTYPE_OFFSET) == Ok(ETHERTYPE_IPV4)
            && context.load(PROTOCOL_OFFSET) == Ok(PROTOCOL_UDP);
        if is_udp {
            load_maps::record(context, interface);
            return TC_ACT_SHOT;
        }
        TC_ACT_OK
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("load is made of BPF programs: build it with `cargo xtask build-ebpf`, `wgx-load` loads it");
    std::process::exit(1);
}
