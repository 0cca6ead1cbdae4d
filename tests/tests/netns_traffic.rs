//! What clients get through the gateway: the same promises on AF_XDP, on the kernel's UDP sockets, and, to
//! prove the tests, on the reference implementation.

use anyhow::Result;
use tests::{Implementation, Io, Lab, World, traffic};

/// Makes a test of each function for each gateway.
macro_rules! on_every_gateway {
    ($($name:ident,)+) => {
        mod af_xdp {
            $(#[test] fn $name() {
                let name = concat!("af_xdp::", stringify!($name));
                tests::scenario_with_wgx(name, |lab| super::$name(lab, super::AF_XDP));
            })+
        }
        mod udp_rung {
            $(#[test] fn $name() {
                let name = concat!("udp_rung::", stringify!($name));
                tests::scenario_with_wgx(name, |lab| super::$name(lab, super::UDP));
            })+
        }
        mod reference {
            $(#[test] fn $name() {
                let name = concat!("reference::", stringify!($name));
                tests::scenario(name, |lab| super::$name(lab, super::REFERENCE));
            })+
        }
    };
}

on_every_gateway! {
    ping_crosses_the_tunnel_in_both_families,
    tcp_and_udp_flow_both_ways,
    two_clients_reach_each_other_through_the_gateway,
    gateway_is_a_host_in_the_tunnel,
    routers_duties_are_done,
    roaming_client_is_followed,
}

const AF_XDP: Implementation = Implementation::Wgx(Io::AfXdp);
const UDP: Implementation = Implementation::Wgx(Io::Udp);
const REFERENCE: Implementation = Implementation::WireguardGo;

fn ping_crosses_the_tunnel_in_both_families(lab: &mut Lab, gateway: Implementation) -> Result<()> {
    traffic::ping_crosses(&World::build(lab, gateway)?)
}

fn tcp_and_udp_flow_both_ways(lab: &mut Lab, gateway: Implementation) -> Result<()> {
    traffic::tcp_and_udp_flow(&World::build(lab, gateway)?, lab)
}

fn two_clients_reach_each_other_through_the_gateway(lab: &mut Lab, gateway: Implementation) -> Result<()> {
    traffic::clients_reach_each_other(&World::build(lab, gateway)?, lab)
}

fn gateway_is_a_host_in_the_tunnel(lab: &mut Lab, gateway: Implementation) -> Result<()> {
    traffic::gateway_is_a_host(&World::build(lab, gateway)?)
}

fn routers_duties_are_done(lab: &mut Lab, gateway: Implementation) -> Result<()> {
    let world = World::build(lab, gateway)?;
    traffic::fragments_cross(&world)?;
    traffic::expired_ttl_is_answered(&world)?;
    traffic::too_big_is_answered(&world)
}

fn roaming_client_is_followed(lab: &mut Lab, gateway: Implementation) -> Result<()> {
    traffic::roaming_client_is_followed(&World::build(lab, gateway)?)
}
