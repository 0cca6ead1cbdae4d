//! The configuration socket as `wg` uses it: the scenarios of the kernel's own network test that configure, on each
//! program and data path.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use anyhow::{Context, Result, ensure};
use tests::{
    Gateway, Implementation, Io, Lab, Site,
    gateway::START_TIMEOUT,
    keys::{Keys, Secret},
    scenario_with_wgx,
};

const OURS: [Implementation; 2] = [Implementation::Wgx(Io::AfXdp), Implementation::Wgx(Io::Udp)];
const ALL: [Implementation; 3] = [OURS[0], OURS[1], Implementation::WireguardGo];

fn each(name: &str, implementations: &[Implementation], test: impl Fn(&Lab, &Gateway) -> Result<()>) {
    scenario_with_wgx(name, |lab| {
        let site = Site::build(lab, 1)?;
        for implementation in implementations {
            let mut gateway = Gateway::new(lab, &site, *implementation)?;
            gateway.launch(lab)?;
            test(lab, &gateway).with_context(|| implementation.to_string())?;
            gateway.terminate()?;
        }
        Ok(())
    });
}

/// `wg LINE`, with NAME for the tunnel; it has to succeed.
fn wg(gateway: &Gateway, line: &str) -> Result<String> {
    gateway.namespace.run(&format!("wg {line}").replace("NAME", &gateway.interface))
}

fn set(gateway: &Gateway, what: &str) -> Result<()> {
    wg(gateway, &format!("set NAME {what}")).map(drop)
}

fn setconf(lab: &Lab, gateway: &Gateway, verb: &str, text: &str) -> Result<()> {
    let file = lab.write_secret(&format!("{verb}.conf"), text)?;
    wg(gateway, &format!("{verb} NAME {}", file.display())).map(drop)
}

/// All prefixes of each line of `wg show allowed-ips`.
fn allowed_ips(gateway: &Gateway) -> Result<Vec<(String, BTreeSet<String>)>> {
    let shown = gateway.show("allowed-ips")?;
    shown
        .lines()
        .map(|line| {
            let (key, prefixes) = line.split_once('\t').with_context(|| format!("{line:?}"))?;
            Ok((key.to_owned(), prefixes.split_whitespace().map(str::to_owned).collect()))
        })
        .collect()
}

#[test]
fn a_hundred_and_thirty_thousand_prefixes_on_one_peer_read_back() {
    each("a_hundred_and_thirty_thousand_prefixes_on_one_peer_read_back", &OURS, |lab, gateway| {
        let mut expected = BTreeSet::new();
        for high in 0..255 {
            for low in 0..256 {
                expected.insert(format!("1.1.{high}.{low}/32"));
                expected.insert(format!("abcd:1::{:x}:{:x}/128", high + 1, low + 1));
            }
        }
        let key = Keys::generate()?.public;
        let mut text = format!("[Peer]\nPublicKey = {key}\n");
        for prefix in &expected {
            writeln!(text, "AllowedIPs = {prefix}")?;
        }
        setconf(lab, gateway, "setconf", &text)?;
        let [(shown_key, shown)] = &allowed_ips(gateway)?[..] else { anyhow::bail!("not one peer") };
        ensure!(shown.len() == 255 * 256 * 2, "{} prefixes", shown.len());
        ensure!(*shown_key == key && *shown == expected, "other prefixes");
        set(gateway, &format!("peer {key} remove"))?;
        ensure!(allowed_ips(gateway)?.is_empty(), "the peer stays");
        Ok(())
    });
}

#[test]
fn many_peers_of_many_prefixes_read_back() {
    each("many_peers_of_many_prefixes_read_back", &ALL, |lab, gateway| {
        let many = |peer_count: u32, prefixes: &dyn Fn(u32) -> Vec<String>| -> Result<()> {
            let mut text = String::new();
            let mut expected = Vec::new();
            for peer in 0..peer_count {
                let key = Secret::preshared()?.reveal().to_owned();
                // `wg` takes no empty list from a file.
                let list = prefixes(peer).join(",");
                let line = if list == "(none)" { String::new() } else { format!("AllowedIPs = {list}\n") };
                write!(text, "[Peer]\nPublicKey = {key}\n{line}")?;
                expected.push((key, prefixes(peer).into_iter().collect::<BTreeSet<_>>()));
            }
            setconf(lab, gateway, "setconf", &text)?;
            let mut shown = allowed_ips(gateway)?;
            // wireguard-go shows them in any order.
            shown.sort();
            expected.sort();
            ensure!(shown == expected, "{} peers, not the {peer_count} that were set", shown.len());
            Ok(())
        };
        many(40, &|peer| (0..52).map(|number| format!("{peer}.{number}.{peer}.{number}/32")).collect())?;
        many(30, &|peer| (0..52).map(|number| format!("{number}.{peer}.{number}.{peer}/32")).collect())?;
        many(1, &|_| (0..197).map(|number| format!("2607:5300:60:6b{number:x}::c05f:54/128")).collect())?;
        // Shown with a word in the place of their prefixes.
        many(30, &|_| vec!["(none)".to_owned()])
    });
}

#[test]
fn keys_are_set_shown_and_cleared() {
    each("keys_are_set_shown_and_cleared", &ALL, |lab, gateway| {
        let (keys, peer, psk) = (Keys::generate()?, Keys::generate()?.public, Secret::preshared()?);
        let file = |name: &str, key: &Secret| -> Result<String> {
            Ok(lab.write_secret(name, key.reveal())?.display().to_string())
        };
        set(gateway, &format!("private-key {}", file("private", &keys.private)?))?;
        ensure!(gateway.show("private-key")?.trim() == keys.private.reveal(), "another private key");
        ensure!(gateway.show("public-key")?.trim() == keys.public, "another public key");
        set(gateway, &format!("peer {peer} preshared-key {} persistent-keepalive 7", file("psk", &psk)?))?;
        ensure!(
            gateway.show("preshared-keys")? == format!("{peer}\t{}\n", psk.reveal()),
            "another preshared key"
        );
        ensure!(gateway.show("persistent-keepalive")? == format!("{peer}\t7\n"), "another interval");
        set(gateway, &format!("peer {peer} preshared-key /dev/null persistent-keepalive off"))?;
        ensure!(
            gateway.show("preshared-keys")? == format!("{peer}\t(none)\n"),
            "{}",
            gateway.show("preshared-keys")?
        );
        ensure!(gateway.show("persistent-keepalive")? == format!("{peer}\toff\n"), "the interval stays");
        set(gateway, "private-key /dev/null")?;
        ensure!(gateway.show("private-key")?.trim() == "(none)", "the private key stays");
        ensure!(gateway.show("public-key")?.trim() == "(none)", "the public key stays");
        ensure!(gateway.show("peers")?.trim() == peer, "the peer is gone");
        Ok(())
    });
}

#[test]
fn a_peer_with_our_own_key_is_never_there() {
    each("a_peer_with_our_own_key_is_never_there", &ALL, |lab, gateway| {
        let (ours, other) = (Keys::generate()?, Keys::generate()?);
        let file = |name: &str, key: &Secret| -> Result<String> {
            Ok(lab.write_secret(name, key.reveal())?.display().to_string())
        };
        // It was a peer before it became us.
        set(
            gateway,
            &format!(
                "peer {} allowed-ips 10.1.0.0/16 peer {} allowed-ips 10.2.0.0/16",
                ours.public, other.public
            ),
        )?;
        set(gateway, &format!("private-key {}", file("ours", &ours.private)?))?;
        ensure!(gateway.show("peers")?.trim() == other.public, "{}", gateway.show("peers")?);
        // And adding it is ignored, without an error.
        set(gateway, &format!("peer {} allowed-ips 10.1.0.0/16", ours.public))?;
        ensure!(gateway.show("peers")?.trim() == other.public, "{}", gateway.show("peers")?);
        // Nor may it take a prefix from anybody.
        set(gateway, &format!("peer {} allowed-ips 10.2.0.0/16", ours.public))?;
        ensure!(
            gateway.show("allowed-ips")? == format!("{}\t10.2.0.0/16\n", other.public),
            "{}",
            gateway.show("allowed-ips")?
        );
        set(gateway, &format!("private-key {}", file("other", &other.private)?))?;
        ensure!(gateway.show("peers")?.trim().is_empty(), "{}", gateway.show("peers")?);
        Ok(())
    });
}

#[test]
fn a_private_key_is_clamped() {
    each("a_private_key_is_clamped", &ALL, |lab, gateway| {
        // All bits set.
        let file = lab.write_secret("key", &format!("{}8=\n", "/".repeat(42)))?;
        set(gateway, &format!("private-key {}", file.display()))?;
        let shown = gateway.show("private-key")?;
        ensure!(shown.trim() == format!("+P{}38=", "/".repeat(39)), "not clamped");
        Ok(())
    });
}

#[test]
fn overlapping_replacements_are_no_errors() {
    each("overlapping_replacements_are_no_errors", &ALL, |_, gateway| {
        let (first, second) = (Keys::generate()?.public, Keys::generate()?.public);
        let sets = [
            format!(
                "peer {first} allowed-ips 0.0.0.0/0,10.0.0.0/8,100.0.0.0/10,172.16.0.0/12,192.168.0.0/16"
            ),
            format!("peer {first} allowed-ips 0.0.0.0/0"),
            format!("peer {first} allowed-ips ::/0,1700::/111,5000::/4,e000::/37,9000::/75"),
            format!("peer {first} allowed-ips ::/0"),
            format!(
                "peer {first} allowed-ips 10.0.0.0/8,10.0.0.0/8,10.0.0.1/8 peer {second} allowed-ips 10.0.0.0/8 peer {first} allowed-ips 10.0.0.0/8"
            ),
            format!("peer {second} allowed-ips ::/0,0.0.0.0/0"),
        ];
        for line in sets {
            set(gateway, &line)?;
        }
        let shown = allowed_ips(gateway)?;
        let of = |key: &str| shown.iter().find(|(shown, _)| shown == key).map(|(_, prefixes)| prefixes.len());
        ensure!((of(&first), of(&second)) == (Some(1), Some(2)), "{shown:?}");
        // Empty allowed IPs take all of them away.
        let mut command = gateway.namespace.command(Path::new("wg"));
        command.args(["set", &gateway.interface, "peer", &second, "allowed-ips", ""]);
        tests::program::output(&mut command, START_TIMEOUT)?;
        ensure!(
            gateway.show("allowed-ips")?.contains(&format!("{second}\t(none)\n")),
            "{}",
            gateway.show("allowed-ips")?
        );
        Ok(())
    });
}

#[test]
fn addconf_adds_and_setconf_replaces() {
    each("addconf_adds_and_setconf_replaces", &ALL, |lab, gateway| {
        let section = |key: &str, prefix| format!("[Peer]\nPublicKey = {key}\nAllowedIPs = {prefix}\n");
        let (first, second) = (Keys::generate()?.public, Keys::generate()?.public);
        setconf(
            lab,
            gateway,
            "setconf",
            &format!("[Interface]\nFwMark = 0x77\n{}", section(&first, "10.1.0.0/16")),
        )?;
        setconf(lab, gateway, "addconf", &section(&second, "10.2.0.0/16"))?;
        let shown: BTreeSet<_> = gateway.show("peers")?.lines().map(str::to_owned).collect();
        ensure!(shown == BTreeSet::from([first, second.clone()]), "{shown:?}");
        ensure!(gateway.show("fwmark")?.trim() == "0x77", "addconf changed the mark");
        setconf(lab, gateway, "setconf", &section(&second, "10.3.0.0/16"))?;
        ensure!(
            gateway.show("allowed-ips")? == format!("{second}\t10.3.0.0/16\n"),
            "{}",
            gateway.show("allowed-ips")?
        );
        ensure!(gateway.show("fwmark")?.trim() == "off", "setconf kept the mark");
        Ok(())
    });
}
