//! A demo that stays: how to look around in it, and its removal.

use anyhow::Result;
use tests::{
    Implementation, Lab, World, registry,
    site::{SERVER_HOST, server_side},
};

/// What the names of its namespaces begin with.
pub const PREFIX: &str = "wgx-demo";

/// Its tunnel interfaces, whose sockets lie in folders all namespaces share.
const INTERFACES: [&str; 3] = ["wgxdemo-gw", "wgxdemo-c1", "wgxdemo-c2"];

/// Removes a kept demo.
pub fn clean() -> Result<()> {
    registry::remove_stale();
    let count = registry::remove_prefixed(PREFIX, &INTERFACES)?;
    println!("{count} namespaces removed");
    Ok(())
}

/// Removes a kept demo, should there be one: its names are needed, and so are its two cores.
pub fn clean_if_any() -> Result<()> {
    if registry::remove_prefixed(PREFIX, &INTERFACES)? > 0 {
        println!("an earlier demo was still up: removed");
    }
    Ok(())
}

/// Leaves everything running and says how to look at it.
pub fn keep(lab: Lab, mut world: World) -> Result<()> {
    world.gateway.keep();
    for client in &mut world.clients {
        client.keep();
    }
    lab.keep();
    let (gateway, client) = (&world.gateway, &world.clients[0]);
    let server = server_side(SERVER_HOST);
    println!("\nStill running. To look around (as root):");
    println!("  ip netns exec {} wg show {}", gateway.namespace.name(), gateway.interface);
    if let Implementation::Wgx(_) = gateway.implementation() {
        let program = gateway.program()?;
        println!(
            "  ip netns exec {} {} status {}",
            gateway.namespace.name(),
            program.display(),
            gateway.interface
        );
    }
    println!("  ip netns exec {} ping {}", client.namespace.name(), server.v4);
    println!("  ip netns exec {} ping {}", client.namespace.name(), server.v6);
    println!("  ip netns exec {} tcpdump -ni eth0", world.site.server.name());
    println!("To remove it: cargo xtask demo --clean");
    Ok(())
}
