//! Attaching to real interfaces, in network namespaces of their own (needs root).

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use gateway::xdp::{AttachMode, Error, Role, Steering};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

use crate::{
    namespace::{Namespace, ip},
    report,
};

const ROLE: Role = Role { uplink: true, downlink: true, mac: [2, 0, 0, 0, 0, 1], mtu: 1500 };

fn index(name: &str) -> u32 {
    name_to_index(socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap(), name).unwrap()
}

/// Waits until the program is gone: the kernel may free a closed link from a work queue, a moment later.
fn loses_its_program(name: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    while has_program(name) && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    !has_program(name)
}

fn has_program(name: &str) -> bool {
    ip(&["-details", "link", "show", name]).contains("prog/xdp")
}

#[test]
fn veth_takes_the_program_in_driver_mode_and_is_free_again_afterwards() {
    if !report::unless_root("veth_takes_the_program_in_driver_mode_and_is_free_again_afterwards") {
        return;
    }
    let _namespace = Namespace::enter();
    ip(&["link", "add", "nic0", "type", "veth", "peer", "name", "nic1"]);

    let mut steering = Steering::load().unwrap();
    assert_eq!(steering.attach(index("nic0"), "nic0", ROLE).unwrap(), AttachMode::Driver);
    assert!(has_program("nic0"));
    assert!(loses_its_program("nic1"));

    steering.detach(index("nic0")).unwrap();
    assert!(loses_its_program("nic0"));
    assert_eq!(steering.attach(index("nic0"), "nic0", ROLE).unwrap(), AttachMode::Driver);
    drop(steering);
    assert!(loses_its_program("nic0"));
}

#[test]
fn an_interface_without_native_xdp_falls_back_to_generic_mode() {
    if !report::unless_root("an_interface_without_native_xdp_falls_back_to_generic_mode") {
        return;
    }
    let _namespace = Namespace::enter();

    let mut steering = Steering::load().unwrap();
    assert_eq!(steering.attach(index("lo"), "lo", ROLE).unwrap(), AttachMode::Generic);
    assert!(ip(&["link", "show", "lo"]).contains("xdpgeneric"));
    drop(steering);
    assert!(loses_its_program("lo"));
}

#[test]
fn an_mtu_too_large_for_native_xdp_falls_back_to_generic_mode() {
    if !report::unless_root("an_mtu_too_large_for_native_xdp_falls_back_to_generic_mode") {
        return;
    }
    let _namespace = Namespace::enter();
    ip(&["link", "add", "nic0", "mtu", "9000", "type", "veth", "peer", "name", "nic1", "mtu", "9000"]);

    let mut steering = Steering::load().unwrap();
    assert_eq!(steering.attach(index("nic0"), "nic0", ROLE).unwrap(), AttachMode::Generic);
    drop(steering);
    assert!(loses_its_program("nic0"));
}

#[test]
fn a_second_program_on_an_interface_is_refused_and_leaves_the_first_alone() {
    if !report::unless_root("a_second_program_on_an_interface_is_refused_and_leaves_the_first_alone") {
        return;
    }
    let _namespace = Namespace::enter();
    ip(&["link", "add", "nic0", "type", "veth", "peer", "name", "nic1"]);

    let mut first = Steering::load().unwrap();
    let mut second = Steering::load().unwrap();
    for name in ["nic0", "lo"] {
        first.attach(index(name), name, ROLE).unwrap();
        let refused = second.attach(index(name), name, ROLE).unwrap_err();
        assert!(matches!(refused, Error::Busy { .. }), "{refused}");
        assert!(refused.to_string().contains(&format!("`ip link set {name} xdp off`")), "{refused}");
        assert!(has_program(name));
    }
    assert!(second.counters().unwrap().is_empty());
    // Once the first is gone the second may.
    drop(first);
    assert!(loses_its_program("nic0"));
    second.attach(index("nic0"), "nic0", ROLE).unwrap();
}

#[test]
fn an_interface_that_is_deleted_takes_nothing_with_it() {
    if !report::unless_root("an_interface_that_is_deleted_takes_nothing_with_it") {
        return;
    }
    let _namespace = Namespace::enter();
    ip(&["link", "add", "nic0", "type", "veth", "peer", "name", "nic1"]);
    ip(&["link", "add", "nic2", "type", "veth", "peer", "name", "nic3"]);

    let mut steering = Steering::load().unwrap();
    let (gone, stays) = (index("nic0"), index("nic2"));
    steering.attach(gone, "nic0", ROLE).unwrap();
    steering.attach(stays, "nic2", ROLE).unwrap();
    ip(&["link", "delete", "nic0"]);
    steering.detach(gone).unwrap();
    assert!(has_program("nic2"));
    assert_eq!(steering.counters().unwrap().len(), 1);
}
