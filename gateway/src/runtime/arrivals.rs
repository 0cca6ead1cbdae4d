//! Whether packets arrive at a rate that is worth staying awake for, by the look at a counter now and then.

use std::time::Duration;

use wireguard::Time;

/// From so many packets per second on: a voice call has 50 each way, so this is some ten clients that talk.
const RATE_MIN: u128 = 1_000;
/// How long the rate may be lower before nothing arrives any more: several frames of video.
const PATIENCE: Duration = Duration::from_millis(300);
/// Looks closer together tell of a burst and not of a rate.
const LOOK_MIN: Duration = Duration::from_millis(20);

/// The packets of one CPU over time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    /// The look before: when, and how many packets there had been.
    last: Option<(Time, u64)>,
    until: Option<Time>,
}

impl Arrivals {
    /// Takes note that there have been `packets` up to `now`. True while they arrive.
    pub(super) fn look(&mut self, now: Time, packets: u64) -> bool {
        match self.last {
            Some((then, _)) if now.saturating_since(then) < LOOK_MIN => {}
            Some((then, before)) => {
                let arrived = u128::from(packets.saturating_sub(before));
                if arrived * 1_000_000_000 >= RATE_MIN * now.saturating_since(then).as_nanos() {
                    self.until = Some(now + PATIENCE);
                }
                self.last = Some((now, packets));
            }
            None => self.last = Some((now, packets)),
        }
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(100);

    /// Looks every 100 ms from second one on; `arrived` packets before each. The answers.
    fn looks(arrived: impl IntoIterator<Item = u64>) -> Vec<bool> {
        let (mut arrivals, mut now, mut packets) = (Arrivals::default(), Time(1_000_000_000), 0);
        let look = |arrived: u64| {
            packets += arrived;
            now = now + LOOK;
            arrivals.look(now, packets)
        };
        arrived.into_iter().map(look).collect()
    }

    #[test]
    fn a_thousand_packets_a_second_are_enough_and_fewer_are_not() {
        assert_eq!(looks([0, 100]), [false, true]);
        assert_eq!(looks([0, 99, 99, 99]), [false; 4]);
    }

    #[test]
    fn what_came_before_the_first_look_is_no_rate() {
        assert_eq!(looks([1_000_000, 0, 10]), [false; 3]);
    }

    #[test]
    fn it_ends_three_looks_after_the_rate_was_last_reached() {
        let answers = looks([0, 500].into_iter().chain([99; 15]));
        assert_eq!(answers.iter().position(|arriving| *arriving), Some(1));
        assert_eq!(answers.iter().filter(|arriving| **arriving).count(), 3);
        assert!(answers[4..].iter().all(|arriving| !arriving), "{answers:?}");
    }

    #[test]
    fn bursts_two_looks_apart_are_one_arrival() {
        let bursts = (0..100).map(|look| if look % 2 == 1 { 200 } else { 0 });
        assert!(looks(bursts).iter().skip(1).all(|arriving| *arriving));
    }

    #[test]
    fn a_late_look_averages_over_all_the_time_it_missed() {
        let mut arrivals = Arrivals::default();
        let start = Time(1_000_000_000);
        assert!(!arrivals.look(start, 0));
        assert!(!arrivals.look(start + Duration::from_mins(1), 59_999));
        assert!(arrivals.look(start + Duration::from_mins(2), 119_999));
    }

    #[test]
    fn two_looks_at_once_make_no_rate_of_a_single_packet() {
        let mut arrivals = Arrivals::default();
        let start = Time(1_000_000_000);
        assert!(!arrivals.look(start, 0));
        assert!(!arrivals.look(start, 1));
        assert!(!arrivals.look(start + Duration::from_micros(1), 2));
        assert!(!arrivals.look(start + LOOK, 3));
    }

    #[test]
    fn a_clock_that_stands_or_a_counter_that_falls_is_no_arrival() {
        let mut arrivals = Arrivals::default();
        assert!(!arrivals.look(Time(2_000_000_000), 1_000_000));
        assert!(!arrivals.look(Time(1_000_000_000), 2_000_000));
        assert!(!arrivals.look(Time(3_000_000_000), 0));
    }
}
