//! `wgx NAME` in the place of `wireguard-go NAME`: `wg-quick` brings tunnels up and down with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    Gateway, Implementation, Io, Lab, Namespace, Site,
    gateway::{Peer, START_TIMEOUT, wgx_path},
    keys::Keys,
    ping,
    program::{self, Outcome},
    scenario_with_wgx,
    site::{
        Addresses, DOWNLINK, Family, GATEWAY_HOST, SERVER_HOST, UPLINK, client_host, inner, outer,
        server_side,
    },
    wait_until,
};

/// Two programs and a dozen calls of `ip`, on a machine that may be busy.
const QUICK: Duration = Duration::from_secs(30);
/// What a client with these sends everything through the tunnel for.
const EVERYTHING: &str = "0.0.0.0/0, ::/0";

/// A tunnel that `wg-quick` brings up in a namespace.
struct Quick {
    namespace: Namespace,
    interface: String,
    keys: Keys,
    file: PathBuf,
    log: PathBuf,
    /// Variables of its environment.
    variables: Vec<(&'static str, String)>,
}

impl Quick {
    fn new(lab: &mut Lab, namespace: &Namespace) -> Result<Self> {
        let interface = lab.interface_name("quick");
        let file = lab.folder().join(format!("{interface}.conf"));
        let log = lab.folder().join(format!("daemon-{interface}.log"));
        let variables = vec![
            ("WG_QUICK_USERSPACE_IMPLEMENTATION", wgx_path()?.display().to_string()),
            ("WGX_LOG_FILE", log.display().to_string()),
            // Nothing of this machine's.
            ("WGX_CONFIG", String::new()),
        ];
        let namespace = namespace.clone();
        Ok(Self { namespace, interface, keys: Keys::generate()?, file, log, variables })
    }

    /// Writes the configuration: lines of its interface section, then peers.
    fn configure(&self, lab: &Lab, lines: &str, peers: &str) -> Result<()> {
        let name = format!("{}.conf", self.interface);
        let key = self.keys.private.reveal();
        lab.write_secret(&name, &format!("[Interface]\nPrivateKey = {key}\n{lines}\n{peers}"))?;
        Ok(())
    }

    fn command(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        // Not bound to this thread as other programs of the namespace are: a daemon outlives who started it.
        let mut command = program::command("ip");
        command.args(["netns", "exec", self.namespace.name()]).arg(program.as_ref()).args(arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn attempt(&self, verb: &str) -> Result<Outcome> {
        program::run(&mut self.command("wg-quick", &[verb, &self.file.display().to_string()]), QUICK)
    }

    fn run(&self, verb: &str) -> Result<String> {
        let outcome = self.attempt(verb)?;
        ensure!(outcome.status.success(), "wg-quick {verb}: {}{}", outcome.stdout, outcome.stderr);
        Ok(outcome.stdout)
    }

    /// `wg-quick up`; the daemon is not our child, so the laboratory is told how to end it by its namespace.
    fn up(&self) -> Result<()> {
        self.run("up").map(drop)
    }

    /// `wg-quick down`, after which nothing is left.
    fn down(&self) -> Result<()> {
        self.run("down")?;
        self.check_gone()
    }

    fn check_gone(&self) -> Result<()> {
        wait_until("the daemon has ended", START_TIMEOUT, || Ok(self.pid()?.is_none()))?;
        ensure!(!self.socket().exists(), "the control socket stayed");
        let links = self.namespace.ip("-oneline link show")?;
        ensure!(!links.contains(&self.interface), "the device stayed: {links}");
        for family in ["-4", "-6"] {
            let rules = self.namespace.ip(&format!("{family} rule show"))?;
            ensure!(!rules.contains("51820"), "a rule stayed: {rules}");
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        Path::new("/run/wireguard").join(&self.interface).with_extension("sock")
    }

    /// The daemon's process id.
    fn pid(&self) -> Result<Option<u32>> {
        let output =
            program::output(program::command("ip").args(["netns", "pids", self.namespace.name()]), QUICK)?;
        Ok(output.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let mut words = line.split(|byte| *byte == 0);
                words.any(|word| word == b"--detached") && words.any(|word| word == self.interface.as_bytes())
            })
        }))
    }

    fn wg(&self, line: &str) -> Result<String> {
        self.namespace.run(&format!("wg {line}").replace("NAME", &self.interface))
    }
}

/// A gateway on AF_XDP that the laboratory runs, and a client for `wg-quick`.
fn client_of_gateway(lab: &mut Lab) -> Result<(Site, Gateway, Quick)> {
    let site = Site::build(lab, 1)?;
    let quick = Quick::new(lab, &site.clients[0])?;
    let mut gateway = Gateway::new(lab, &site, Implementation::Wgx(Io::Auto))?;
    gateway.peers.push(Peer {
        public_key: quick.keys.public.clone(),
        preshared_key: None,
        allowed_ips: client().both().map(|address| address.to_string()).into(),
    });
    gateway.start(lab)?;
    Ok((site, gateway, quick))
}

fn client() -> Addresses {
    inner(client_host(1))
}

fn address_lines() -> String {
    format!("Address = {}/24\nAddress = {}/64\n", client().v4, client().v6)
}

fn peer_section(gateway: &Gateway, allowed_ips: &str) -> String {
    let (key, endpoint) = (&gateway.keys.public, gateway.endpoint(Family::V4));
    format!("[Peer]\nPublicKey = {key}\nEndpoint = {endpoint}\nAllowedIPs = {allowed_ips}\n")
}

fn check_reaches_server(namespace: &Namespace) -> Result<()> {
    for address in server_side(SERVER_HOST).both() {
        ping::wait_for_reply(namespace, address, Duration::from_secs(20))?;
        ping::all_answered(namespace, address, 5)?;
    }
    Ok(())
}

#[test]
fn a_client_with_default_routes_comes_up_and_goes_down() {
    scenario_with_wgx("a_client_with_default_routes_comes_up_and_goes_down", |lab| {
        let (_site, gateway, quick) = client_of_gateway(lab)?;
        quick.configure(lab, &(address_lines() + "MTU = 1380"), &peer_section(&gateway, EVERYTHING))?;
        for _ in 0..2 {
            quick.up()?;
            check_reaches_server(&quick.namespace)?;
            ensure!(quick.wg("show NAME fwmark")?.trim() == "0xca6c", "{}", quick.wg("show NAME fwmark")?);
            for (family, address) in [("-4", "203.0.113.9"), ("-6", "2001:db8:99::9")] {
                let route = quick.namespace.ip(&format!("{family} route get {address}"))?;
                ensure!(route.contains(&quick.interface), "not through the tunnel: {route}");
                let marked = quick.namespace.ip(&format!(
                    "{family} route get {} mark 51820",
                    outer(GATEWAY_HOST).of(if family == "-4" { Family::V4 } else { Family::V6 })
                ))?;
                ensure!(marked.contains("eth0"), "the outer packets too: {marked}");
            }
            let link = quick.namespace.ip(&format!("link show {}", quick.interface))?;
            ensure!(link.contains("mtu 1380"), "{link}");
            quick.down()?;
        }
        Ok(())
    });
}

#[test]
fn a_gateway_on_af_xdp_comes_up_by_its_options_file() {
    scenario_with_wgx("a_gateway_on_af_xdp_comes_up_by_its_options_file", |lab| {
        let site = Site::build(lab, 1)?;
        let mut server = Quick::new(lab, &site.gateway)?;
        let client = Quick::new(lab, &site.clients[0])?;
        let options = format!("uplink = ['{UPLINK}']\ndownlink = ['{DOWNLINK}']\nio = 'af-xdp'\n");
        let options = lab.write_secret("options.toml", &options)?;
        server.variables.push(("WGX_CONFIG", options.display().to_string()));

        let (own, peer) = (inner(GATEWAY_HOST), inner(client_host(1)));
        let lines = format!("Address = {}/24, {}/64\nListenPort = 51820\n", own.v4, own.v6);
        let section =
            format!("[Peer]\nPublicKey = {}\nAllowedIPs = {}, {}\n", client.keys.public, peer.v4, peer.v6);
        server.configure(lab, &lines, &section)?;
        let section = format!(
            "[Peer]\nPublicKey = {}\nEndpoint = [{}]:51820\nAllowedIPs = {}/24, {}/64, 198.51.100.0/24, 2001:db8:2::/64\n",
            server.keys.public,
            outer(GATEWAY_HOST).v6,
            own.v4,
            own.v6
        );
        client.configure(lab, &address_lines(), &section)?;
        server.up()?;
        client.up()?;
        check_reaches_server(&client.namespace)?;
        let status = program::output(
            &mut server.command(wgx_path()?, &["status", &server.interface, "--json"]),
            QUICK,
        )?;
        ensure!(tests::Status::parse(&status)?.rung() == "af-xdp", "{status}");
        client.down()?;
        server.down()?;
        ensure!(
            site.gateway.run("bpftool net show")?.matches("uplink").count() == 0,
            "an XDP program stayed"
        );
        Ok(())
    });
}

#[test]
fn hooks_run_and_the_configuration_is_saved() {
    scenario_with_wgx("hooks_run_and_the_configuration_is_saved", |lab| {
        let (_site, gateway, quick) = client_of_gateway(lab)?;
        let notes = lab.folder().join("notes");
        let note = |when: &str| {
            format!("{when} = echo {when} %i $(wg show %i listen-port) >> {}\n", notes.display())
        };
        let lines =
            address_lines() + &note("PostUp") + &note("PreDown") + "SaveConfig = true\nListenPort = 45678\n";
        quick.configure(lab, &lines, &peer_section(&gateway, "198.51.100.0/24, 2001:db8:2::/64"))?;
        quick.up()?;
        check_reaches_server(&quick.namespace)?;
        let other = Keys::generate()?.public;
        quick.wg(&format!(
            "set NAME peer {other} allowed-ips 10.99.0.0/16,fd99::/48 persistent-keepalive 21"
        ))?;
        quick.wg(&format!("set NAME peer {} allowed-ips 198.51.100.0/24", gateway.keys.public))?;
        quick.down()?;

        let (name, text) = (&quick.interface, fs::read_to_string(&notes)?);
        ensure!(text == format!("PostUp {name} 45678\nPreDown {name} 45678\n"), "{text}");
        let saved = fs::read_to_string(&quick.file)?;
        for line in [
            "ListenPort = 45678",
            &format!("PrivateKey = {}", quick.keys.private.reveal()),
            &format!("PublicKey = {other}\nAllowedIPs = 10.99.0.0/16, fd99::/48\nPersistentKeepalive = 21"),
            &format!(
                "PublicKey = {}\nAllowedIPs = 198.51.100.0/24\nEndpoint = 192.0.2.1:51820",
                gateway.keys.public
            ),
        ] {
            ensure!(
                saved.contains(line),
                "{line:?} was not saved:\n{}",
                saved.replace(quick.keys.private.reveal(), "...")
            );
        }
        // What was saved comes up again.
        quick.up()?;
        ping::wait_for_reply(&quick.namespace, server_side(SERVER_HOST).v4.into(), Duration::from_secs(20))?;
        quick.down()
    });
}

#[test]
fn strip_and_syncconf_leave_sessions_alone() {
    scenario_with_wgx("strip_and_syncconf_leave_sessions_alone", |lab| {
        let (_site, gateway, quick) = client_of_gateway(lab)?;
        let lines = address_lines() + "ListenPort = 45679\n";
        let gateway_section = peer_section(&gateway, "198.51.100.0/24, 2001:db8:2::/64");
        quick.configure(lab, &lines, &gateway_section)?;
        quick.up()?;
        check_reaches_server(&quick.namespace)?;
        let before = (quick.wg("show NAME latest-handshakes")?, gateway.show("latest-handshakes")?);

        let other = Keys::generate()?.public;
        quick.configure(
            lab,
            &lines,
            &format!("{gateway_section}[Peer]\nPublicKey = {other}\nAllowedIPs = 10.98.0.0/16\n"),
        )?;
        let stripped = lab.write_secret("stripped.conf", &quick.run("strip")?)?;
        quick.wg(&format!("syncconf NAME {}", stripped.display()))?;
        ensure!(quick.wg("show NAME peers")?.contains(&other), "the new peer is not there");
        ping::all_answered(&quick.namespace, server_side(SERVER_HOST).v4.into(), 10)?;

        quick.configure(lab, &lines, &gateway_section)?;
        let stripped = lab.write_secret("stripped.conf", &quick.run("strip")?)?;
        quick.wg(&format!("syncconf NAME {}", stripped.display()))?;
        ping::all_answered(&quick.namespace, server_side(SERVER_HOST).v4.into(), 10)?;
        let after = (quick.wg("show NAME latest-handshakes")?, gateway.show("latest-handshakes")?);
        ensure!(before == after, "there was a handshake in between: {before:?}, {after:?}");
        quick.down()
    });
}

#[test]
fn dns_without_resolvconf_fails_and_leaves_nothing() {
    scenario_with_wgx("dns_without_resolvconf_fails_and_leaves_nothing", |lab| {
        if program::find("resolvconf").is_some() {
            tests::scenario::skip(
                "dns_without_resolvconf_fails_and_leaves_nothing",
                "resolvconf is installed",
            );
            return Ok(());
        }
        let (_site, gateway, quick) = client_of_gateway(lab)?;
        quick.configure(
            lab,
            &(address_lines() + "DNS = 198.51.100.53"),
            &peer_section(&gateway, EVERYTHING),
        )?;
        let outcome = quick.attempt("up")?;
        ensure!(!outcome.status.success(), "wg-quick set a name server without resolvconf");
        ensure!(outcome.stderr.contains("resolvconf"), "{}", outcome.stderr);
        quick.check_gone()
    });
}

#[test]
fn the_daemon_lets_go_of_whoever_started_it() {
    scenario_with_wgx("the_daemon_lets_go_of_whoever_started_it", |lab| {
        let namespace = lab.namespace("alone")?;
        let quick = Quick::new(lab, &namespace)?;
        // Reading its output to the end succeeds only if the daemon holds neither stdout nor stderr.
        let outcome = program::run(&mut quick.command(wgx_path()?, &[&quick.interface]), QUICK)?;
        ensure!(outcome.status.success() && outcome.stdout.is_empty(), "{outcome:?}");
        // Ready means ready: no waiting here.
        ensure!(quick.socket().exists(), "no control socket");
        ensure!(quick.wg("show NAME public-key")?.trim() == "(none)", "no answer");
        let pid = quick.pid()?.context("no daemon")?;
        let proc = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        for descriptor in ["fd/0", "fd/1", "fd/2"] {
            let target = fs::read_link(proc(descriptor))?;
            ensure!(target == Path::new("/dev/null"), "{descriptor} is {}", target.display());
        }
        ensure!(fs::read_link(proc("cwd"))? == Path::new("/"), "it keeps a directory busy");
        let status = fs::read_to_string(proc("status"))?;
        ensure!(status.contains("Umask:\t0077"), "{status}");
        let stat = fs::read_to_string(proc("stat"))?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        ensure!(fields[3] == pid.to_string(), "session {} is not its own", fields[3]);
        let log = fs::read_to_string(&quick.log)?;
        ensure!(log.contains("ready"), "the log was lost: {log}");

        // A second one is refused, by the name of what is in the way, and the first goes on.
        let outcome = program::run(&mut quick.command(wgx_path()?, &[&quick.interface]), QUICK)?;
        ensure!(outcome.status.code() == Some(1), "{outcome:?}");
        ensure!(outcome.stderr.contains(&quick.interface) && outcome.stderr.contains("wgx: "), "{outcome:?}");
        quick.wg("show NAME public-key")?;

        fs::remove_file(quick.socket())?;
        quick.check_gone()
    });
}

#[test]
fn what_wgx_cannot_do_for_wireguard_go_is_refused_in_one_line() {
    scenario_with_wgx("what_wgx_cannot_do_for_wireguard_go_is_refused_in_one_line", |lab| {
        let namespace = lab.namespace("alone")?;
        let quick = Quick::new(lab, &namespace)?;
        let bad = lab.write_secret("bad.toml", "uplink = ['eth77']\n")?.display().to_string();
        let cases = [
            (quick.interface.as_str(), ("WG_TUN_FD", "3"), "WG_TUN_FD"),
            (&quick.interface, ("WG_UAPI_FD", "4"), "WG_UAPI_FD"),
            (&quick.interface, ("WGX_CONFIG", "/nonexistent.toml"), "/nonexistent.toml"),
            (&quick.interface, ("WGX_CONFIG", &bad), "eth77"),
            ("a-name-that-is-too-long", ("LOG_LEVEL", "silent"), "cannot name a tunnel"),
            ("../up", ("LOG_LEVEL", "silent"), "cannot name a tunnel"),
        ];
        for (name, (variable, value), named) in cases {
            let mut command = quick.command(wgx_path()?, &[name]);
            let outcome = program::run(command.env(variable, value), QUICK)?;
            ensure!(outcome.status.code() == Some(1), "{variable}={value}: {outcome:?}");
            let complaints: Vec<_> =
                outcome.stderr.lines().filter(|line| line.starts_with("wgx: ")).collect();
            let [complaint] = complaints[..] else { bail!("{variable}={value}: {outcome:?}") };
            ensure!(complaint.contains(named), "{variable}={value}: {complaint}");
            quick.check_gone()?;
        }
        Ok(())
    });
}

#[test]
fn in_the_foreground_it_stays_and_ends_with_its_device() {
    scenario_with_wgx("in_the_foreground_it_stays_and_ends_with_its_device", |lab| {
        let namespace = lab.namespace("alone")?;
        let quick = Quick::new(lab, &namespace)?;
        for arguments in [vec!["-f", &quick.interface], vec![quick.interface.as_str()]] {
            let mut command = namespace.command(wgx_path()?);
            command
                .args(&arguments)
                .env("WG_PROCESS_FOREGROUND", if arguments.len() == 1 { "1" } else { "0" });
            command.env("LOG_LEVEL", "verbose").env("WGX_CONFIG", "");
            let mut process = lab.spawn(&format!("foreground{}", arguments.len()), &mut command)?;
            wait_until("the device is there", START_TIMEOUT, || {
                process.check_running()?;
                Ok(quick.socket().exists() && namespace.ip("link show")?.contains(&quick.interface))
            })?;
            namespace.ip(&format!("link delete {}", quick.interface))?;
            ensure!(process.wait(START_TIMEOUT)?.success(), "it did not end well");
            ensure!(!quick.socket().exists(), "the control socket stayed");
        }
        Ok(())
    });
}
