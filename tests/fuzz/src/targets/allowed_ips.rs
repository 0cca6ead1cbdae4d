//! Allowed IPs against a list that is searched from end to end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use wireguard::AllowedIps;

use crate::input::Input;

/// Few bits differ, so that prefixes contain one another.
fn address(input: &mut Input) -> IpAddr {
    let bytes: [u8; 2] = input.value();
    let place = input.below(3);
    if input.value() {
        let mut octets = [10, 0, 0, 0];
        octets[place..place + 2].copy_from_slice(&bytes);
        Ipv4Addr::from(octets).into()
    } else {
        let mut octets = [0; 16];
        octets[place * 7..place * 7 + 2].copy_from_slice(&bytes);
        Ipv6Addr::from(octets).into()
    }
}

fn prefix(input: &mut Input) -> IpNet {
    match address(input) {
        IpAddr::V4(address) => {
            Ipv4Net::new(address, input.below(33) as u8).expect("at most 32").trunc().into()
        }
        IpAddr::V6(address) => {
            Ipv6Net::new(address, input.below(129) as u8).expect("at most 128").trunc().into()
        }
    }
}

/// Gives prefixes to peers and takes them away; the table and an earlier copy of it answer as lists would.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut table = AllowedIps::new();
    let mut list: Vec<(IpNet, u8)> = Vec::new();
    let mut snapshot = (table.clone(), list.clone());
    while input.has_step() {
        match input.below(8) {
            0..=2 => {
                let (prefix, peer) = (prefix(&mut input), input.value::<u8>() % 8);
                let former = list.iter().position(|(other, _)| *other == prefix);
                let former = former.map(|place| list.swap_remove(place).1);
                list.push((prefix, peer));
                assert_eq!(table.insert(prefix, peer), former);
            }
            3 => {
                let prefix = match list.len() {
                    0 => prefix(&mut input),
                    len => list[input.below(len)].0,
                };
                let former = list.iter().position(|(other, _)| *other == prefix);
                let former = former.map(|place| list.swap_remove(place).1);
                assert_eq!(table.remove(&prefix), former);
            }
            4 => {
                let peer = input.value::<u8>() % 8;
                list.retain(|(_, owner)| *owner != peer);
                table.remove_all_of(&peer);
            }
            5 => snapshot = (table.clone(), list.clone()),
            6 => {
                let prefix = prefix(&mut input);
                let owner = list.iter().find(|(other, _)| *other == prefix).map(|(_, peer)| peer);
                assert_eq!(table.owner(&prefix), owner);
            }
            _ => {
                let address = address(&mut input);
                assert_eq!(table.lookup(address), lookup(&list, address), "{address}");
                assert_eq!(snapshot.0.lookup(address), lookup(&snapshot.1, address), "{address} earlier");
            }
        }
    }
    assert_same(&table, list);
    assert_same(&snapshot.0, snapshot.1);
}

fn lookup(list: &[(IpNet, u8)], address: IpAddr) -> Option<&u8> {
    let containing = list.iter().filter(|(prefix, _)| prefix.contains(&address));
    containing.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, peer)| peer)
}

fn assert_same(table: &AllowedIps<u8>, mut list: Vec<(IpNet, u8)>) {
    let mut entries: Vec<_> = table.iter().map(|(prefix, peer)| (prefix, *peer)).collect();
    assert_eq!(table.len(), entries.len());
    assert_eq!(table.is_empty(), entries.is_empty());
    entries.sort_unstable();
    list.sort_unstable();
    assert_eq!(entries, list);
}
