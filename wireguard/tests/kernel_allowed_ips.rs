//! The facts of the kernel's self-test of allowed IPs (`selftest/allowedips.c`): who has which address, and that
//! what is removed is gone.

use std::net::IpAddr;

use ipnet::IpNet;
use wireguard::AllowedIps;

fn net(text: &str) -> IpNet {
    text.parse::<IpNet>().expect("a prefix").trunc()
}

#[track_caller]
fn owner(table: &AllowedIps<char>, address: &str) -> Option<char> {
    table.lookup(address.parse::<IpAddr>().expect("an address")).copied()
}

fn table(prefixes: &[(char, &str)]) -> AllowedIps<char> {
    let mut table = AllowedIps::new();
    for &(peer, prefix) in prefixes {
        table.insert(net(prefix), peer);
    }
    table
}

/// Some of them have host bits, some take the place of others.
const PREFIXES: [(char, &str); 23] = [
    ('a', "192.168.4.0/24"),
    ('b', "192.168.4.4/32"),
    ('c', "192.168.0.0/16"),
    ('d', "192.95.5.64/27"),
    ('c', "192.95.5.65/27"),
    ('d', "2607:5300:6000:6b00::c05f:543/128"),
    ('c', "2607:5300:6000:6b00::/64"),
    ('e', "0.0.0.0/0"),
    ('e', "::/0"),
    ('f', "::/0"),
    ('g', "2404:6800::/32"),
    ('h', "2404:6800:4004:800:dead:beef:dead:beef/64"),
    ('a', "2404:6800:4004:800:dead:beef:dead:beef/128"),
    ('c', "2444:6800:40e4:800:deae:beef:def:beef/128"),
    ('b', "2444:6800:f0e4:800:eeae:beef::/98"),
    ('g', "64.15.112.0/20"),
    ('h', "64.15.123.211/25"),
    ('a', "10.0.0.0/25"),
    ('b', "10.0.0.128/25"),
    ('a', "10.1.0.0/30"),
    ('b', "10.1.0.4/30"),
    ('c', "10.1.0.8/29"),
    ('d', "10.1.0.16/29"),
];

const OWNERS: [(char, &str); 28] = [
    ('a', "192.168.4.20"),
    ('a', "192.168.4.0"),
    ('b', "192.168.4.4"),
    ('c', "192.168.200.182"),
    ('c', "192.95.5.68"),
    ('e', "192.95.5.96"),
    ('d', "2607:5300:6000:6b00::c05f:543"),
    ('c', "2607:5300:6000:6b00::c02e:1ee"),
    ('f', "2607:5300:6000:6b01::"),
    ('g', "2404:6800:4004:806::1006"),
    ('g', "2404:6800:4004:806:0:1234:0:5678"),
    ('f', "2404:67ff:4004:806:0:1234:0:5678"),
    ('f', "2404:6801:4004:806:0:1234:0:5678"),
    ('h', "2404:6800:4004:800:0:1234:0:5678"),
    ('h', "2404:6800:4004:800::"),
    ('h', "2404:6800:4004:800:1010:1010:1010:1010"),
    ('a', "2404:6800:4004:800:dead:beef:dead:beef"),
    ('g', "64.15.116.26"),
    ('g', "64.15.127.3"),
    ('g', "64.15.123.1"),
    ('h', "64.15.123.128"),
    ('h', "64.15.123.129"),
    ('a', "10.0.0.52"),
    ('b', "10.0.0.220"),
    ('a', "10.1.0.2"),
    ('b', "10.1.0.6"),
    ('c', "10.1.0.10"),
    ('d', "10.1.0.20"),
];

#[test]
fn longest_prefix_decides_as_in_the_kernel() {
    let table = table(&PREFIXES);
    for (peer, address) in OWNERS {
        assert_eq!(owner(&table, address), Some(peer), "{address}");
    }
}

#[test]
fn removed_peer_has_no_address_left() {
    let hosts = ["1.0.0.0", "64.0.0.0", "128.0.0.0", "192.0.0.0", "255.0.0.0"];
    let mut table = table(&PREFIXES);
    for host in hosts {
        table.insert(net(&format!("{host}/32")), 'a');
        assert_eq!(owner(&table, host), Some('a'));
    }
    table.remove_all_of(&'a');
    for host in hosts {
        assert_eq!(owner(&table, host), Some('e'), "{host} falls to the default route");
    }
    assert_eq!(owner(&table, "192.168.4.20"), Some('c'));
}

#[test]
fn nested_prefixes_of_one_peer_go_together() {
    let mut table = table(&[('a', "192.168.0.0/16"), ('a', "192.168.0.0/24")]);
    table.remove_all_of(&'a');
    assert_eq!(owner(&table, "192.168.0.1"), None);
    assert_eq!(table.len(), 0);
}

#[test]
fn addresses_that_branch_at_every_bit_come_and_go() {
    let hosts: Vec<IpNet> =
        (0..128).map(|bit| IpNet::from(IpAddr::from((!(1_u128 << bit)).to_be_bytes()))).collect();
    let mut table = AllowedIps::new();
    for (bit, host) in hosts.iter().enumerate() {
        assert_eq!(table.insert(*host, bit), None);
    }
    for (bit, host) in hosts.iter().enumerate() {
        assert_eq!(table.lookup(host.addr()), Some(&bit));
        assert_eq!(table.remove(host), Some(bit));
        assert_eq!(table.lookup(host.addr()), None);
    }
    assert_eq!(table.len(), 0);
}

#[test]
fn listed_prefixes_have_no_host_bits() {
    let table = table(&[
        ('a', "192.95.5.93/27"),
        ('a', "2607:5300:6000:6b00::c05f:543/128"),
        ('a', "10.1.0.20/29"),
        ('a', "2607:5300:6d8a:6bf8:dab1:f1df:c05f:1523/83"),
        ('a', "2607:5300:6d8a:6bf8:dab1:f1df:c05f:1523/21"),
    ]);
    let mut listed: Vec<String> = table.iter().map(|(prefix, _)| prefix.to_string()).collect();
    listed.sort();
    let expected = [
        "10.1.0.16/29",
        "192.95.5.64/27",
        "2607:5000::/21",
        "2607:5300:6000:6b00::c05f:543/128",
        "2607:5300:6d8a:6bf8:dab1:e000::/83",
    ];
    assert_eq!(listed, expected);
}
