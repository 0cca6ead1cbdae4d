//! What the outer headers show of the inner ones, and what they do to them: `wgx` and the kernel against one table.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{
    Io, Lab, Process,
    guest::{Cell, GUEST_HOST, GUEST_INTERFACE, Pair},
    interop::Role,
    site::{self, Family, GATEWAY_HOST},
    wait_until,
};

use crate::{
    matrix::{MTU, data_len, headers},
    paths::Path,
};

/// AF41 without ECN, as the kernel marks handshakes.
const HANDSHAKE_TOS: u8 = 0x88;
/// Understands marks.
const ECT_0: u8 = 2;
/// Congestion experienced.
const CE: u8 = 3;
/// Marks every packet that says it understands, and lets none of the others pass.
const MARK: &str = "loss 100% ecn";
const CLEAN: &str = "delay 0ms";
/// For the last lines of a capture.
const SOON: Duration = Duration::from_secs(30);

/// Where routers mark what they would rather drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marked {
    Nowhere,
    /// From the kernel to `wgx`, which decapsulates it.
    ToWgx,
    /// From `wgx` to the kernel, which decapsulates it.
    ToKernel,
}

/// One ping, known by its length.
#[derive(Clone, Copy, Debug)]
struct Case {
    tos: u8,
    marked: Marked,
    len: u64,
}

pub fn outer_headers_are_those_of_the_kernel(lab: &mut Lab, pair: &mut Pair, _: Io) -> Result<()> {
    Path::open(&pair.guest)?;
    for (role, family) in [(Role::Initiator, Family::V4), (Role::Responder, Family::V6)] {
        let cell = Cell { role, outer: family, inner: family, psk: false };
        ecn_is_carried_and_dscp_is_not(lab, pair, cell).with_context(|| cell.to_string())?;
        padding_is_capped_by_the_mtu(lab, pair, cell).with_context(|| cell.to_string())?;
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for tos in [0, 1, 2, 3, 0xb8, 0xb9, 0x4a] {
        let understands = matches!(tos & 3, 1 | 2);
        let marks: &[_] = if understands { &[Marked::ToWgx, Marked::ToKernel] } else { &[] };
        for marked in [&[Marked::Nowhere], marks].concat() {
            cases.push(Case { tos, marked, len: 160 + 16 * cases.len() as u64 });
        }
    }
    cases
}

/// RFC 6040 both ways, with outer DSCP 0 on data and AF41 on handshakes.
fn ecn_is_carried_and_dscp_is_not(lab: &Lab, pair: &mut Pair, cell: Cell) -> Result<()> {
    let family = cell.inner;
    let label = format!("{family:?}");
    let wan = capture(lab, &format!("wan-{label}"), pair.site.wan.command("tcpdump"), "to-gateway", "udp")?;
    let server = capture(lab, &format!("server-{label}"), pair.site.server.command("tcpdump"), "eth0", ICMP)?;
    pair.guest.run(&format!("tcpdump -Z root -Uln -v -i wg0 '{ICMP}' >/tmp/{label} 2>&1 &"))?;
    wait_until("the guest captures", SOON, || {
        Ok(pair.guest.run(&format!("cat /tmp/{label}"))?.contains("listening on"))
    })
    .with_context(|| pair.guest.run(&format!("cat /tmp/{label}")).unwrap_or_default())?;

    pair.meet(lab, cell)?;
    match cell.role {
        Role::Initiator => pair.ping_from_kernel(family, "-c 1")?,
        Role::Responder => pair.ping_from_server(family, "-c 1")?,
    };
    for case in cases() {
        let path = Path { guest: &pair.guest };
        match case.marked {
            Marked::Nowhere => {}
            Marked::ToWgx => path.set_on(GUEST_INTERFACE, MARK)?,
            Marked::ToKernel => path.set_on("ifb0", MARK)?,
        }
        let arguments = format!("-c 1 -Q {} -s {}", case.tos, case.len - headers(family));
        pair.ping_from_kernel(family, &arguments).with_context(|| format!("{case:?}"))?;
        path.set(CLEAN)?;
    }
    let last = cases().last().context("there are cases")?.len;
    let guest = || pair.guest.run(&format!("cat /tmp/{label}"));
    wait_until("the captures are complete", SOON, || {
        let inner = [server.output(), guest()?];
        let whole =
            inner.iter().all(|text| packets(text).iter().filter(|packet| packet.len == last).count() == 2);
        Ok(whole && packets(&wan.output()).iter().filter(|packet| packet.len == outer_len(last)).count() == 2)
    })?;
    let seen =
        Seen { wan: packets(&wan.output()), server: packets(&server.output()), guest: packets(&guest()?) };
    for case in cases() {
        seen.check(case, family).with_context(|| format!("{case:?}"))?;
    }
    let handshakes: Vec<_> = seen.wan.iter().filter(|packet| matches!(packet.len, 148 | 92)).collect();
    ensure!(handshakes.len() >= 2, "no handshake was captured");
    ensure!(handshakes.iter().all(|packet| packet.tos == HANDSHAKE_TOS), "handshakes: {handshakes:?}");
    pair.guest.run("killall tcpdump")?;
    Ok(())
}

/// What was captured: outer packets between the two, inner ones where the server and the guest see them.
struct Seen {
    wan: Vec<Packet>,
    server: Vec<Packet>,
    guest: Vec<Packet>,
}

impl Seen {
    fn check(&self, case: Case, family: Family) -> Result<()> {
        let Case { tos, marked, len } = case;
        let (kernel, wgx) = (site::outer(GUEST_HOST).of(family), site::outer(GATEWAY_HOST).of(family));
        // Request: the kernel encapsulates, wgx decapsulates.
        let mark = |here| if marked == here { CE } else { 0 };
        let arrived = tos | mark(Marked::ToWgx);
        let outer = outer_len(len);
        // The kernel does not pass on that inner packets were marked already (include/net/inet_ecn.h,
        // INET_ECN_encapsulate); wgx does, as RFC 6040 section 4.1 has it. Nothing is lost either way.
        let by_kernel = if tos & 3 == CE { ECT_0 } else { tos & 3 };
        let field = by_kernel | mark(Marked::ToWgx);
        one(&self.wan, outer, &kernel.to_string(), field).context("outer request, by the kernel")?;
        let inner = site::inner(GUEST_HOST).of(family).to_string();
        one(&self.server, len, &inner, arrived).context("inner request, decapsulated by wgx")?;
        // Reply, with the field of the request: the other way round. It is marked behind the capture.
        one(&self.wan, outer, &wgx.to_string(), arrived & 3).context("outer reply, by wgx")?;
        let server = Pair::server(family).to_string();
        one(&self.guest, len, &server, arrived | mark(Marked::ToKernel))
            .context("inner reply, decapsulated by the kernel")
    }
}

/// There is one packet of this length from this source, with this field.
fn one(packets: &[Packet], len: u64, source: &str, tos: u8) -> Result<()> {
    let found: Vec<_> =
        packets.iter().filter(|packet| packet.len == len && packet.source == source).collect();
    ensure!(found.len() == 1, "{} packets of {len} bytes from {source}", found.len());
    ensure!(found[0].tos == tos, "the field is {:#x}, not {tos:#x}", found[0].tos);
    Ok(())
}

fn outer_len(len: u64) -> u64 {
    data_len(len, MTU)
}

/// The kernel pads no packet beyond the MTU, which is none of 16's multiples; nor does `wgx`.
fn padding_is_capped_by_the_mtu(lab: &Lab, pair: &mut Pair, cell: Cell) -> Result<()> {
    const NARROW: u64 = 1285;
    let set_mtu = |pair: &Pair, mtu: u64| -> Result<()> {
        pair.guest.run(&format!("ip link set wg0 mtu {mtu}"))?;
        pair.site.gateway.ip(&format!("link set {} mtu {mtu}", pair.gateway.interface))?;
        Ok(())
    };
    set_mtu(pair, NARROW)?;
    pair.meet(lab, cell)?;
    match cell.role {
        Role::Initiator => pair.ping_from_kernel(cell.inner, "-c 1")?,
        Role::Responder => pair.ping_from_server(cell.inner, "-c 1")?,
    };
    let before = pair.agreed_transfer()?;
    let mut data = 0;
    for len in [1264, 1265, NARROW - 1, NARROW] {
        let arguments = format!("-c 1 -s {}", len - headers(cell.inner));
        pair.ping_from_kernel(cell.inner, &arguments).with_context(|| format!("{len} bytes"))?;
        data += data_len(len, NARROW);
    }
    let after = pair.agreed_transfer()?;
    ensure!(after.rx - before.rx == data, "wgx sent {} bytes, not {data}", after.rx - before.rx);
    ensure!(after.tx - before.tx == data, "the kernel sent {} bytes, not {data}", after.tx - before.tx);
    set_mtu(pair, MTU)
}

/// Pings only; in a shell too.
const ICMP: &str = "icmp or icmp6";

/// Starts a capture and waits until it sees packets.
fn capture(
    lab: &Lab,
    label: &str,
    mut tcpdump: std::process::Command,
    interface: &str,
    filter: &str,
) -> Result<Process> {
    tcpdump.args(["-Uln", "-v", "-i", interface, filter]);
    let mut process = lab.spawn(label, &mut tcpdump)?;
    wait_until(&format!("{label} is captured"), SOON, || {
        process.check_running()?;
        Ok(process.output().contains("listening on"))
    })?;
    Ok(process)
}

/// A packet as `tcpdump -v` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    /// The whole byte: DSCP and ECN.
    tos: u8,
    source: String,
    /// Of the UDP payload, or of an IP packet with ICMP.
    len: u64,
}

/// The UDP datagrams and echo packets in the output of `tcpdump -n -v`.
fn packets(text: &str) -> Vec<Packet> {
    // The second half of an IPv4 packet is on a line of its own.
    let text = text.replace("\n    ", " ");
    text.lines().filter_map(packet).collect()
}

fn packet(line: &str) -> Option<Packet> {
    let (head, rest) = line.split_once(") ")?;
    let (head, rest) = if rest.contains(" > ") { (head, rest) } else { return None };
    let hex = |after: &str| {
        u8::from_str_radix(head.split_once(after)?.1.get(..2)?.trim_matches([',', ' ']), 16).ok()
    };
    let tos = hex("(tos 0x").or_else(|| hex("(class 0x")).unwrap_or(0);
    // IPv6 names the next header with its number in parentheses, so the addresses come after the last one.
    let addresses = rest.rsplit(") ").find(|part| part.contains(" > "))?;
    let source = addresses.split(" > ").next()?.trim();
    let udp = line.rsplit_once("UDP, length ").and_then(|(_, len)| len.trim().parse().ok());
    if let Some(len) = udp {
        return Some(Packet { tos, source: source.rsplit_once('.')?.0.to_owned(), len });
    }
    let number = |after: &str| {
        let rest = line.split_once(after)?.1;
        rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    line.contains("echo re").then_some(())?;
    let len = number("payload length: ").map(|len| len + 40).or_else(|| number("), length "))?;
    Some(Packet { tos, source: source.to_owned(), len })
}

#[test]
fn packets_of_both_families_are_read() {
    let text = "tcpdump: listening on eth0\n\
        08:00:01.1 IP (tos 0x2,ECT(0), ttl 64, id 1, offset 0, flags [DF], proto ICMP (1), length 84)\n    \
        10.10.0.13 > 198.51.100.2: ICMP echo request, id 1, seq 1, length 64\n\
        08:00:01.2 IP (tos 0x88, ttl 64, id 1, offset 0, flags [none], proto UDP (17), length 176)\n    \
        192.0.2.13.51820 > 192.0.2.1.51820: UDP, length 148\n\
        08:00:01.3 IP6 (class 0xb9, flowlabel 0x1, hlim 64, next-header ICMPv6 (58) payload length: 64) \
        fd10::d > fd10::1: [icmp6 sum ok] ICMP6, echo reply, id 1, seq 1\n\
        08:00:01.4 IP6 (hlim 64, next-header UDP (17) payload length: 100) \
        2001:db8::d.51820 > 2001:db8::1.51820: [udp sum ok] UDP, length 92\n\
        08:00:01.5 IP6 (hlim 255, next-header ICMPv6 (58) payload length: 32) \
        fe80::1 > fe80::2: [icmp6 sum ok] ICMP6, neighbor solicitation, length 32\n";
    let packet = |tos, source: &str, len| Packet { tos, source: source.into(), len };
    assert_eq!(
        packets(text),
        [
            packet(0x02, "10.10.0.13", 84),
            packet(0x88, "192.0.2.13", 148),
            packet(0xb9, "fd10::d", 104),
            packet(0, "2001:db8::d", 92),
        ]
    );
}
