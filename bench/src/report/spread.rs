//! A median with how far its values lie apart.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A figure of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle value; the upper of two.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of some values; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &greatest) = values.first().zip(values.last())?;
        Some(Self { median: values[values.len() / 2], least, greatest })
    }

    /// Of one value.
    pub fn exactly(value: f64) -> Self {
        Self { median: value, least: value, greatest: value }
    }

    /// All values multiplied.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let [median, least, greatest] = [self.median, self.least, self.greatest].map(|value| value * factor);
        Self { median, least, greatest }
    }
}

/// `median (least..greatest)`, or the median alone where they are the same; digits as the format's precision says.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(0);
        let [median, least, greatest] =
            [self.median, self.least, self.greatest].map(|value| format!("{value:.digits$}"));
        if least == greatest {
            return f.write_str(&median);
        }
        write!(f, "{median} ({least}..{greatest})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_value_whatever_the_order() {
        let spread = Spread::of([5.0, 1.0, 3.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.greatest), (3.0, 1.0, 5.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_spread_shows_its_ends_where_they_differ() {
        assert_eq!(Spread::of([5.0, 1.0, 3.0]).unwrap().to_string(), "3 (1..5)");
        assert_eq!(format!("{:.1}", Spread::exactly(2.0)), "2.0");
        assert_eq!(format!("{:.2}", Spread::of([1.0, 3.0]).unwrap().scaled(0.5)), "1.50 (0.50..1.50)");
    }
}
