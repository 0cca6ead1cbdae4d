//! The load generator is right before anything is measured with it: at a low rate every packet is accounted for.

use anyhow::{Context as _, Result, ensure};
use bench::load::{Direction, Driver, Generator, KeySeed, Outcome, Setup, Sizes, Trial, Watched};
use tests::{Gateway, Implementation, Io, Lab, Straight, program, scenario_with_wgx};

const CLIENT_COUNT: u32 = 2;
const RATE_PPS: u64 = 2_000;
const SECONDS: f64 = 0.25;
const PACKET_COUNT: u64 = 500;

fn trial(direction: Direction, sizes: Sizes) -> Trial {
    Trial {
        direction,
        sizes,
        clients: CLIENT_COUNT,
        rate_pps: Some(RATE_PPS),
        seconds: SECONDS,
        is_watched: false,
    }
}

/// All arrived once, as they were sent, and were measured.
fn check_complete(outcome: &Outcome) -> Result<()> {
    let counts = [outcome.intended, outcome.sent, outcome.received, outcome.latency_samples];
    ensure!(counts == [PACKET_COUNT; 4], "{outcome:?}");
    let faults = [outcome.lost, outcome.duplicates, outcome.corrupt, outcome.reordered, outcome.sink_drops];
    ensure!(faults == [0; 5], "{outcome:?}");
    let latency = outcome.latency.ok_or_else(|| anyhow::anyhow!("no latency: {outcome:?}"))?;
    ensure!(latency.min_us > 0.0 && latency.min_us <= latency.p50_us, "{outcome:?}");
    ensure!(outcome.elapsed_seconds >= SECONDS * 0.99, "{outcome:?}");
    ensure!(outcome.percentiles.last().is_some_and(|last| last.percentile >= 100.0), "{outcome:?}");
    Ok(())
}

/// A gateway with so many queues and workers, and a generator with a session for each client.
fn start(lab: &mut Lab, driver: Driver, queue_count: u32) -> Result<(Gateway, Generator)> {
    let (gateway, setup) = straight(lab, driver, queue_count)?;
    let (generator, ready) = Generator::new(setup)?;
    ensure!(ready.handshakes == CLIENT_COUNT, "{ready:?}");
    Ok((gateway, generator))
}

/// The same, with what the generator is to be told.
fn straight(lab: &mut Lab, driver: Driver, queue_count: u32) -> Result<(Gateway, Setup)> {
    let straight = Straight::build(lab, queue_count)?;
    let seed = KeySeed::random()?;
    let mut gateway = straight.gateway(lab, Implementation::Wgx(Io::AfXdp), &seed, CLIENT_COUNT)?;
    gateway.start(lab)?;
    straight.route(&gateway)?;
    let tunnel = straight.tunnel(&gateway.keys.public, &seed);
    let setup = straight.setup(driver, CLIENT_COUNT, Some(tunnel))?;
    Ok((gateway, setup))
}

/// Every direction, every kind of sizes.
fn check_all_directions(lab: &mut Lab, driver: Driver) -> Result<()> {
    let (gateway, mut generator) = start(lab, driver, 1)?;
    let before = gateway.status()?;
    for (direction, sizes) in [
        (Direction::Decrypt, Sizes::Fixed(1420)),
        (Direction::Encrypt, Sizes::Imix),
        (Direction::Hairpin, Sizes::Media),
        (Direction::Bidirectional, Sizes::Fixed(200)),
    ] {
        check_complete(&generator.trial(&trial(direction, sizes))?)?;
    }
    let fast = gateway.status()?.since(&before).fast();
    // With an allowance for what comes before a next hop is known.
    ensure!(fast >= 4 * PACKET_COUNT * 95 / 100, "only {fast} packets went over AF_XDP");
    Ok(())
}

#[test]
fn every_packet_of_a_slow_trial_is_accounted_for() {
    scenario_with_wgx("every_packet_of_a_slow_trial_is_accounted_for", |lab| {
        check_all_directions(lab, Driver::LiveFrames)
    });
}

#[test]
fn every_packet_of_a_slow_trial_over_af_xdp_is_accounted_for() {
    scenario_with_wgx("every_packet_of_a_slow_trial_over_af_xdp_is_accounted_for", |lab| {
        check_all_directions(lab, Driver::AfXdp)
    });
}

#[test]
fn a_gateway_that_cannot_keep_up_loses_what_is_missing() {
    scenario_with_wgx("a_gateway_that_cannot_keep_up_loses_what_is_missing", |lab| {
        let (_gateway, mut generator) = start(lab, Driver::LiveFrames, 1)?;
        let flood = Trial { rate_pps: None, seconds: 0.1, ..trial(Direction::Decrypt, Sizes::Fixed(1228)) };
        let outcome = generator.trial(&flood)?;
        ensure!(outcome.received > 0 && outcome.lost > 0, "{outcome:?}");
        ensure!(outcome.received + outcome.lost == outcome.sent, "{outcome:?}");
        let faults = [outcome.duplicates, outcome.corrupt, outcome.reordered, outcome.sink_drops];
        ensure!(faults == [0; 4], "{outcome:?}");
        Ok(())
    });
}

#[test]
fn clients_are_spread_over_all_queues_and_workers() {
    scenario_with_wgx("clients_are_spread_over_all_queues_and_workers", |lab| {
        let (gateway, mut generator) = start(lab, Driver::AfXdp, 2)?;
        for direction in [Direction::Decrypt, Direction::Encrypt] {
            check_complete(&generator.trial(&trial(direction, Sizes::Fixed(200)))?)?;
        }
        // Half of them, with an allowance for what comes before a next hop is known.
        let enough = PACKET_COUNT / 2 * 95 / 100;
        let status = gateway.status()?;
        let workers = status.value()["workers"].as_array().cloned().unwrap_or_default();
        for verdict in ["opened_to_link", "sealed_to_link"] {
            let counts: Vec<_> =
                workers.iter().filter_map(|worker| worker["verdicts"][verdict].as_u64()).collect();
            ensure!(counts.iter().filter(|count| **count >= enough).count() == 2, "{verdict}: {counts:?}");
        }
        Ok(())
    });
}

#[test]
fn who_else_has_the_processors_is_named_and_the_generator_is_not() {
    scenario_with_wgx("who_else_has_the_processors_is_named_and_the_generator_is_not", |lab| {
        let (mut gateway, setup) = straight(lab, Driver::AfXdp, 1)?;
        let cpu_count = u32::try_from(std::thread::available_parallelism()?.get())?;
        let watched = Watched { process: Some(gateway.process()?.pid()), cpus: (0..cpu_count).collect() };
        let (mut generator, _) = Generator::new(Setup { watched: Some(watched), ..setup })?;
        let busy = |number| {
            lab.spawn(&format!("busy-{number}"), program::command("sh").args(["-c", "while :; do :; done"]))
        };
        let _busy = (0..cpu_count).map(busy).collect::<Result<Vec<_>>>()?;
        let trial = trial(Direction::Decrypt, Sizes::Fixed(200));
        let outcome = generator.trial(&Trial { is_watched: true, ..trial })?;
        let held_up = outcome.held_up.context("nobody watched")?;
        let of = |name: &str| held_up.by.keys().any(|by| by.starts_with(name));
        // The generator is a thread of this test, by whose name it goes.
        ensure!(of("sh on CPU ") && !of("who_else_"), "{held_up:?}");
        ensure!(held_up.packets() <= outcome.latency_samples, "{held_up:?}");
        Ok(())
    });
}

#[test]
fn a_gateway_that_does_not_know_a_client_is_named_with_its_key() {
    scenario_with_wgx("a_gateway_that_does_not_know_a_client_is_named_with_its_key", |lab| {
        let straight = Straight::build(lab, 1)?;
        let seed = KeySeed::random()?;
        let mut gateway = straight.gateway(lab, Implementation::Wgx(Io::AfXdp), &seed, 1)?;
        gateway.start(lab)?;
        let tunnel = straight.tunnel(&gateway.keys.public, &seed);
        let Err(error) = Generator::new(straight.setup(Driver::LiveFrames, 2, Some(tunnel))?) else {
            anyhow::bail!("a stranger got a session");
        };
        let expected = format!("does the gateway know the public key {}", seed.public_key(1));
        ensure!(format!("{error:#}").contains(&expected), "{error:#}");
        Ok(())
    });
}

#[test]
fn without_wireguard_all_packets_are_forwarded_as_they_are() {
    scenario_with_wgx("without_wireguard_all_packets_are_forwarded_as_they_are", |lab| {
        let straight = Straight::build(lab, 1)?;
        let (mut generator, _) = Generator::new(straight.setup(Driver::LiveFrames, CLIENT_COUNT, None)?)?;
        for direction in [Direction::Decrypt, Direction::Bidirectional] {
            check_complete(&generator.trial(&trial(direction, Sizes::Fixed(1228)))?)?;
        }
        Ok(())
    });
}
