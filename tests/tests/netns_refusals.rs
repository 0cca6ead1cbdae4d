//! Starts that cannot work: each ends with one line that names what is wrong, and leaves nothing behind.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    Gateway, Implementation, Io, Lab, Namespace, Site, World, gateway::wgx_path, program, scenario_with_wgx,
    wait_until,
};

/// A start that fails fails at once.
const TIMEOUT: Duration = Duration::from_secs(20);

const AUTO: Implementation = Implementation::Wgx(Io::Auto);

/// Runs `wgx ARGUMENTS` in the gateway's namespace.
fn wgx(namespace: &Namespace, arguments: &str) -> Result<Command> {
    let mut command = namespace.command(wgx_path()?);
    command.args(arguments.split_whitespace());
    Ok(command)
}

/// The command exits with `code` and one line of complaint, which contains `named`, and changes nothing.
fn check_refused(command: &mut Command, namespace: &Namespace, code: i32, named: &str) -> Result<()> {
    let line = program::shown(command);
    let before = state(namespace)?;
    let outcome = program::run(command, TIMEOUT)?;
    let said = format!("`{line}` said: {}{}", outcome.stdout, outcome.stderr);
    ensure!(outcome.status.code() == Some(code), "exit code {:?}, not {code}; {said}", outcome.status.code());
    ensure!(!outcome.stderr.contains("panicked"), "{said}");
    let complaints: Vec<_> = outcome
        .stderr
        .lines()
        .filter(|line| line.starts_with("wgx: ") || line.starts_with("error: "))
        .collect();
    ensure!(complaints.len() == 1, "{} complaints, not one; {said}", complaints.len());
    ensure!(complaints[0].contains(named), "`{named}` is not named; {said}");
    check_unchanged(namespace, &before).with_context(|| format!("after `{line}`"))
}

/// Waits until the state is that of before: the kernel takes down what belonged to a process a moment after its end.
fn check_unchanged(namespace: &Namespace, before: &str) -> Result<()> {
    let unchanged = wait_until("nothing is left behind", TIMEOUT, || Ok(state(namespace)? == before));
    unchanged.with_context(|| format!("{before}\nbecame\n{}", state(namespace).unwrap_or_default()))
}

/// What a failed start could have left: interfaces with their XDP programs, and sockets.
fn state(namespace: &Namespace) -> Result<String> {
    let mut sockets = Vec::new();
    for folder in ["/run/wireguard", "/run/wgx"] {
        for entry in Path::new(folder).read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("wgx{}-", std::process::id())) {
                sockets.push(name);
            }
        }
    }
    sockets.sort();
    // Not the carrier, which the kernel notices some time after a link was made.
    let links: Value = serde_json::from_str(&namespace.ip("-json link show")?)?;
    let link = |link: &Value| {
        let is_up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
        let [name, mtu, address, xdp] = ["ifname", "mtu", "address", "xdp"].map(|field| &link[field]);
        format!("{name} up {is_up} mtu {mtu} address {address} xdp {xdp}\n")
    };
    let links: String = links.as_array().into_iter().flatten().map(link).collect();
    Ok(format!("{links}{}{sockets:?}", namespace.run("ss -Hlun")?))
}

/// A site whose gateway has not been started.
fn idle(lab: &mut Lab) -> Result<(Site, Gateway)> {
    let site = Site::build(lab, 1)?;
    let gateway = Gateway::new(lab, &site, AUTO)?;
    Ok((site, gateway))
}

#[test]
fn wrong_interfaces_are_refused_by_name() {
    scenario_with_wgx("wrong_interfaces_are_refused_by_name", |lab| {
        let (site, gateway) = idle(lab)?;
        let name = &gateway.interface;
        let refuse = |options: &str, named: &str| {
            let mut command = wgx(&site.gateway, &format!("run {name} {options}"))?;
            check_refused(&mut command, &site.gateway, 1, named)
        };
        refuse("--uplink eth77", "eth77")?;
        refuse("--uplink uplink --downlink eth78", "eth78")?;
        refuse("--uplink uplink,uplink", "uplink")?;
        refuse("--uplink uplink --downlink downlink,downlink", "downlink")?;
        site.gateway.ip("link set downlink down")?;
        refuse("--uplink uplink --downlink downlink", "downlink")?;
        refuse("--uplink uplink --cores 4000", "4000")
    });
}

#[test]
fn wrong_usage_exits_with_two() {
    scenario_with_wgx("wrong_usage_exits_with_two", |lab| {
        let (site, gateway) = idle(lab)?;
        let name = &gateway.interface;
        for (arguments, named) in [
            (format!("run {name} --uplink uplink --io dpdk"), "dpdk"),
            (format!("run {name} --uplink uplink --cores 3-1"), "3-1"),
            (format!("run {name} --uplink uplink --frobnicate"), "--frobnicate"),
        ] {
            check_refused(&mut wgx(&site.gateway, &arguments)?, &site.gateway, 2, named)?;
        }
        Ok(())
    });
}

#[test]
fn absurd_names_are_refused() {
    scenario_with_wgx("absurd_names_are_refused", |lab| {
        let (site, _gateway) = idle(lab)?;
        for name in ["a-name-longer-than-the-kernel-takes", "with/slash", ".."] {
            let mut command = wgx(&site.gateway, &format!("run {name} --uplink uplink"))?;
            let outcome = program::run(&mut command, TIMEOUT)?;
            ensure!(matches!(outcome.status.code(), Some(1 | 2)), "{name}: {:?}", outcome.status);
            ensure!(
                outcome.stderr.contains(name) && !outcome.stderr.contains("panicked"),
                "{}",
                outcome.stderr
            );
        }
        Ok(())
    });
}

#[test]
fn second_instance_is_refused_and_does_not_disturb_the_first() {
    scenario_with_wgx("second_instance_is_refused_and_does_not_disturb_the_first", |lab| {
        let world = World::build(lab, AUTO)?;
        let namespace = &world.site.gateway;
        let mut same_name = world.gateway.run_command(Io::Auto)?;
        check_refused(&mut same_name, namespace, 1, &world.gateway.interface)?;
        tests::traffic::ping_crosses(&world)?;

        // The other name is free, but the interface already has an XDP program.
        let other = lab.interface_name("other");
        let mut same_interface = wgx(namespace, &format!("run {other} --uplink uplink --io af-xdp"))?;
        check_refused(&mut same_interface, namespace, 1, "uplink")?;
        tests::traffic::ping_crosses(&world)
    });
}

#[test]
fn name_of_an_existing_interface_is_refused() {
    scenario_with_wgx("name_of_an_existing_interface_is_refused", |lab| {
        let (site, gateway) = idle(lab)?;
        site.gateway.ip(&format!("link add {} type bridge", gateway.interface))?;
        let mut command = gateway.run_command(Io::Auto)?;
        check_refused(&mut command, &site.gateway, 1, &gateway.interface)
    });
}

#[test]
fn missing_capabilities_are_named() {
    scenario_with_wgx("missing_capabilities_are_named", |lab| {
        let (site, gateway) = idle(lab)?;
        let before = state(&site.gateway)?;
        let mut command = site.gateway.command("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(wgx_path()?);
        command.args(["run", &gateway.interface, "--uplink", "uplink", "--downlink", "downlink"]);
        let outcome = program::run(&mut command, TIMEOUT)?;
        ensure!(outcome.status.code() == Some(1), "{:?}: {}", outcome.status, outcome.stderr);
        ensure!(outcome.stderr.contains("CAP_"), "no capability is named: {}", outcome.stderr);
        ensure!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        check_unchanged(&site.gateway, &before)
    });
}
