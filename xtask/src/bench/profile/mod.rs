//! `cargo xtask bench profile`: where the time of a packet goes, by samples of the stacks on the gateway's processor.
//!
//! A nanosecond of a packet is a sample's period times the samples of a part, by the packets that arrived.

mod recorder;
mod stacks;

use ::tests::Io;
use anyhow::{Result, bail};
use bench::{
    load::{Direction, Sizes, Trial},
    search::Tester as _,
};

use self::{
    recorder::Recorder,
    stacks::{Part, Samples},
};
use super::{
    candidate::{Candidate, GATEWAY_CPU},
    priority::Ahead,
    stand::{Size, Stand},
    trial,
};
use crate::{demo::console::Console, setup, table::Table};

/// Loads whose packets are taken apart.
const FLOODS: [(Direction, u16); 3] =
    [(Direction::Decrypt, 1228), (Direction::Encrypt, 1228), (Direction::Decrypt, 200)];
/// Clients of a stand; trials use the first.
const CLIENTS: u32 = 2;
/// Functions that are shown.
const FUNCTIONS: usize = 16;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Shorter floods.
    #[arg(long)]
    quick: bool,

    /// Only these.
    #[arg(
        long,
        value_name = "NAME[,NAME...]",
        value_delimiter = ',',
        value_parser = Candidate::named,
        default_values = ["wgx", "boringtun", "af-xdp-forward"]
    )]
    only: Vec<Candidate>,
}

/// What one candidate did in one flood.
struct Profile {
    name: String,
    received: u64,
    samples: Samples,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    setup::install_profiler()?;
    let console = Console::start();
    console.say("build", "as released");
    trial::build(true)?;
    let _ahead = Ahead::of_other_sessions();
    let mut stands = Vec::new();
    for candidate in &args.only {
        if let Some(why) = candidate.obstacle() {
            bail!("{} cannot be profiled: {why}", candidate.contender().name);
        }
        stands.push(Stand::build(*candidate, Size::clients(CLIENTS))?);
    }
    let rounds = if args.quick { 2 } else { 5 };
    for (direction, size) in FLOODS {
        let trial = Trial {
            direction,
            sizes: Sizes::Fixed(size),
            clients: 1,
            rate_pps: None,
            seconds: 1.0,
            is_watched: false,
        };
        let mut profiles = Vec::new();
        for stand in &mut stands {
            console.say("flood", &format!("{}: {direction:?} {size} bytes", stand.contender.name));
            profiles.push(flood(stand, &trial, rounds)?);
        }
        print!("{}", costs(&format!("{direction:?}, {size} bytes, flood: ns per packet"), &profiles));
        if let Some(own) = profiles.iter().find(|profile| profile.name == own_name()) {
            print!("{}", functions(own));
        }
    }
    super::stand::take_down(stands);
    Ok(())
}

fn own_name() -> String {
    Candidate::Wgx(Io::AfXdp).contender().name
}

/// Floods a candidate and samples what runs on its processor.
fn flood(stand: &mut Stand, trial: &Trial, rounds: u32) -> Result<Profile> {
    let recorder = Recorder::start(&[GATEWAY_CPU])?;
    let mut received = 0;
    for _ in 0..rounds {
        received += stand.trial(trial)?.received;
    }
    let own = stand.pid();
    let samples = recorder.finish(|pid| Some(pid) == own)?;
    Ok(Profile { name: stand.contender.name.clone(), received, samples })
}

impl Profile {
    /// Nanoseconds of a packet.
    fn ns(&self, samples: u64) -> f64 {
        samples as f64 * Recorder::PERIOD_NS / self.received.max(1) as f64
    }
}

/// One column a candidate, one row a part.
fn costs(title: &str, profiles: &[Profile]) -> Table {
    let mut columns = vec!["part"];
    columns.extend(profiles.iter().map(|profile| profile.name.as_str()));
    let mut table = Table::new(title, &columns);
    let mut row = |title: &str, ns: &dyn Fn(&Profile) -> f64| {
        let cells = profiles.iter().map(|profile| format!("{:.0}", ns(profile)));
        table.row([title.to_owned()].into_iter().chain(cells));
    };
    for part in Part::OF_A_PACKET {
        row(part.title(), &|profile| profile.ns(profile.samples.of(part)));
    }
    row("all", &|profile| Part::OF_A_PACKET.iter().map(|part| profile.ns(profile.samples.of(*part))).sum());
    table
}

/// What costs most.
fn functions(own: &Profile) -> Table {
    let title = format!("Where {} spends it", own.name);
    let mut table = Table::new(&title, &["function", "part", "ns per packet"]);
    for (part, function, samples) in own.samples.functions().into_iter().take(FUNCTIONS) {
        table.row([function, part.title().to_owned(), format!("{:.0}", own.ns(samples))]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_samples_by_packets_received() {
        let script = "wgx-queue-0 7\n\tffffffff81000000 veth_poll\n\nwgx-queue-0 7\n\t401000 main\n\n";
        let samples = Samples::read(script, |pid| pid == 7);
        let profile = Profile { name: "wgx".into(), received: 1000, samples };
        let text = costs("Costs", &[profile]).to_string();
        let each = format!("{:.0}", Recorder::PERIOD_NS / 1000.0);
        let row = |title: &str| text.lines().find(|line| line.trim_start().starts_with(title)).unwrap();
        assert!(row(Part::Receiver.title()).ends_with(&each), "{text}");
        assert!(row(Part::Program.title()).ends_with(&each), "{text}");
        assert!(row("all").ends_with(&format!("{:.0}", Recorder::PERIOD_NS / 500.0)), "{text}");
    }
}
