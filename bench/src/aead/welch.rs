//! Welch's t-test, on line, and on what is left when the longest times are cut off at different places.
//!
//! After Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?" (DATE 2017), sections II and III: two
//! classes of inputs, times taken alternately at random, and a test of whether their means differ. Interrupts lengthen
//! some times by much; so the test is also made on times below certain percentiles, and once on the squared distances
//! from the mean, which finds classes that differ in spread.

/// Cut-offs, as the paper's program has them: exponentially closer to the greatest.
const CUT_OFFS: i32 = 100;

/// Mean and variance by Welford's method.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let difference = value - self.mean;
        self.mean += difference / self.count;
        self.squares += difference * (value - self.mean);
    }

    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut moments = Self::default();
        values.for_each(|value| moments.add(value));
        moments
    }

    /// Variance of the mean.
    fn error(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }
}

/// |t| of two classes; 0 where there are too few values to say.
fn statistic(classes: [Moments; 2]) -> f64 {
    let [first, second] = classes;
    let error = (first.error() + second.error()).sqrt();
    // Differences that nothing explains weigh most: equal means of values that never vary weigh nothing.
    let t = (first.mean - second.mean).abs() / error;
    if first.count < 100.0 || second.count < 100.0 || t.is_nan() { 0.0 } else { t }
}

/// The greatest |t| of all tests on times with their classes.
pub fn greatest_t(times: &[(bool, f64)]) -> f64 {
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    let cut_offs = (1..=CUT_OFFS).map(|step| {
        let part = 1.0 - 0.5_f64.powf(10.0 * f64::from(step) / f64::from(CUT_OFFS));
        let index = (part * sorted.len() as f64) as usize;
        sorted.get(index).copied().unwrap_or(f64::INFINITY)
    });
    let below = |cut_off: f64| {
        let class = |class: bool| {
            let times = times.iter().filter(move |(of, time)| *of == class && *time <= cut_off);
            Moments::of(times.map(|(_, time)| *time))
        };
        [class(false), class(true)]
    };
    let all = below(f64::INFINITY);
    let spread = [false, true].map(|class| {
        let mean = all[usize::from(class)].mean;
        let times = times.iter().filter(|(of, _)| *of == class);
        Moments::of(times.map(|(_, time)| (time - mean).powi(2)))
    });
    let cut = cut_offs.map(|cut_off| statistic(below(cut_off)));
    cut.chain([statistic(all), statistic(spread)]).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise of 0 to 99 without a pattern, and now and then an interrupt.
    fn times(extra_of_second: f64) -> Vec<(bool, f64)> {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        (0..20_000)
            .map(|_| {
                let class = next() % 2 == 1;
                let interrupt = if next() % 100 == 0 { (next() % 100_000) as f64 } else { 0.0 };
                let extra = if class { extra_of_second } else { 0.0 };
                (class, 1000.0 + (next() % 100) as f64 + extra + interrupt)
            })
            .collect()
    }

    #[test]
    fn classes_that_do_not_differ_are_not_told_apart() {
        let t = greatest_t(&times(0.0));
        assert!(t < 4.5, "{t}");
    }

    #[test]
    fn classes_that_differ_by_less_than_the_noise_are_told_apart() {
        let t = greatest_t(&times(5.0));
        assert!(t > 10.0, "{t}");
    }

    #[test]
    fn classes_of_the_same_mean_and_other_spread_are_told_apart() {
        let times: Vec<(bool, f64)> = (0..4000)
            .map(|index| {
                let (class, sign) = (index % 2 == 1, if index % 4 < 2 { 1.0 } else { -1.0 });
                let width = if class { 5.0 } else { 10.0 };
                (class, 1000.0 + sign * (width + f64::from(index % 7)))
            })
            .collect();
        assert!(greatest_t(&times) > 10.0);
    }

    #[test]
    fn statistic_is_that_of_welch() {
        // Means 1.5 and 3.5, variances of the means 0.25 / 99 * ... of 100 values each: |t| by hand.
        let class = |low: f64| Moments::of((0..100).map(|index| low + f64::from(index % 2)));
        let variance_of_mean = 25.0 / 99.0 / 100.0;
        let expected = 2.0 / (2.0_f64 * variance_of_mean).sqrt();
        assert!((statistic([class(1.0), class(3.0)]) - expected).abs() < 1e-9);
    }
}
