//! `cargo xtask bench scale`: speed and memory against clients that send, peers configured, prefixes allowed and workers.

use std::time::Duration;

use ::tests::{Io, peer::Program};
use anyhow::Result;
use bench::{
    load::{Direction, Driver, Sizes},
    report::{Axis, Case, ScalePoint, Spread},
};

use super::{
    candidate::{Candidate, LOAD_CPU, worker_cpus},
    session::{self, Session, trial_of},
    stand::{Size, Stand, cpu_count},
};

/// The quick form ends about here.
const BUDGET: Duration = Duration::from_secs(90);

/// Clients whose packets are spread over workers.
const FLOWS: u32 = 16;

/// One size along an axis.
struct Step {
    candidate: Candidate,
    axis: Axis,
    count: u32,
}

/// Measures and reports.
pub fn run(args: &session::Args) -> Result<()> {
    let mut session = Session::start("scale", args, BUDGET)?;
    for axis in [Axis::Clients, Axis::Peers, Axis::Prefixes, Axis::Workers] {
        let steps = steps(axis, session.quick);
        let (ours, peers): (Vec<Step>, Vec<Step>) =
            steps.into_iter().partition(|step| matches!(step.candidate, Candidate::Wgx(_)));
        for group in [ours, peers] {
            if session.has_spent(1.0) {
                session.note(format!("no time was left for {axis:?}"));
                continue;
            }
            measure(&mut session, axis, &group)?;
        }
    }
    session.finish()
}

fn steps(axis: Axis, quick: bool) -> Vec<Step> {
    let wgx = Candidate::Wgx(Io::AfXdp);
    let counts: &[u32] = match (axis, quick) {
        (Axis::Clients, true) => &[1, 10_000],
        (Axis::Clients, false) => &[1, 10, 1_000, 10_000],
        (Axis::Peers, true) => &[1, 20_000],
        (Axis::Peers, false) => &[1, 1_000, 10_000, 100_000],
        (Axis::Prefixes | Axis::Workers, true) => &[],
        (Axis::Prefixes, false) => &[1, 1_000, 100_000],
        (Axis::Workers, false) => &[1, 2],
    };
    let mut steps: Vec<Step> = counts.iter().map(|&count| Step { candidate: wgx, axis, count }).collect();
    if axis == Axis::Clients && !quick {
        for program in Program::ALL {
            let step = |count| Step { candidate: Candidate::Peer(program), axis, count };
            steps.extend([1, 1_000].map(step));
        }
    }
    steps
}

impl Step {
    fn size(&self) -> Size {
        match self.axis {
            Axis::Clients => Size::clients(self.count),
            Axis::Peers => Size { peers: self.count, ..Size::clients(1) },
            Axis::Prefixes => Size { prefixes: self.count, ..Size::clients(1) },
            // One of them too: frames made in the kernel enter by one queue only.
            Axis::Workers => Size { workers: self.count, driver: Driver::AfXdp, ..Size::clients(FLOWS) },
        }
    }

    /// Prefixes are looked up on the way out, and checked on the way in.
    fn case(&self) -> Case {
        let (direction, clients) = match self.axis {
            Axis::Clients => (Direction::Decrypt, self.count),
            Axis::Peers | Axis::Prefixes => (Direction::Encrypt, 1),
            Axis::Workers => (Direction::Decrypt, FLOWS),
        };
        Case { direction, sizes: Sizes::Fixed(1228), clients }
    }
}

/// All sizes of an axis are up at once and measured in turn.
fn measure(session: &mut Session, axis: Axis, steps: &[Step]) -> Result<()> {
    let mut stands: Vec<(&Step, Stand, Vec<f64>)> = Vec::new();
    let most = steps.iter().map(|step| step.size().workers).max().unwrap_or(1);
    if worker_cpus(most, cpu_count()?).contains(&LOAD_CPU) {
        session.note(format!(
            "of {most} workers one shares its processor with the load generator: there are no more"
        ));
    }
    for step in steps.iter().filter(|step| session.includes(step.candidate)).collect::<Vec<_>>() {
        if let Some(stand) = session.stand(step.candidate, step.size())? {
            stands.push((step, stand, Vec::new()));
        }
    }
    let seconds = session.trial_seconds();
    // Ratios of a few percent are looked for: trials are cheap beside what it took to come here.
    for _ in 0..2 * session.report.rounds {
        for (step, stand, flood_pps) in &mut stands {
            let outcome = session.trial(stand, &trial_of(&step.case(), None, seconds))?;
            flood_pps.extend(outcome.map(|outcome| outcome.received_pps));
        }
    }
    for (step, stand, flood_pps) in stands {
        let Some(flood_pps) = Spread::of(flood_pps) else { continue };
        let text = format!(
            "{:<15} {axis:?} {}: {:.0} kpps",
            stand.contender.name,
            step.count,
            flood_pps.scaled(1e-3)
        );
        session.console.say("flood", &text);
        session.report.scale.push(ScalePoint {
            contender: stand.contender.clone(),
            axis,
            count: step.count,
            case: step.case(),
            flood_pps,
            resident_mib: stand.resident_mib()?,
            configure_seconds: stand.configure_seconds,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_runs_measure_what_the_goals_take() {
        let counts: Vec<_> = steps(Axis::Clients, true).iter().map(|step| step.count).collect();
        assert_eq!(counts, [1, 10_000]);
        assert_eq!(steps(Axis::Workers, true).len(), 0, "there is hardly a processor for the second");
        assert!(steps(Axis::Peers, false).iter().any(|step| step.count == 100_000));
    }

    #[test]
    fn only_clients_send() {
        let step = Step { candidate: Candidate::Wgx(Io::AfXdp), axis: Axis::Peers, count: 500 };
        assert_eq!((step.size().clients, step.size().peers, step.case().clients), (1, 500, 1));
        let step = Step { axis: Axis::Clients, ..step };
        assert_eq!((step.size().clients, step.size().peers, step.case().clients), (500, 500, 500));
    }
}
