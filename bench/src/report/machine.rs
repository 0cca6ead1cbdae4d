//! The machine a figure is of, and how much of it others had meanwhile.

use std::{collections::BTreeMap, fmt::Write as _, fs, thread};

use serde::{Deserialize, Serialize};

/// What a reader has to know of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Processors this process may use.
    pub cores: usize,
    /// Whether it is a virtual machine, as its processor says.
    pub virtual_machine: bool,
    /// What of its processor matters to ciphers: `avx512f`, `avx512ifma`, `avx2`, ...
    pub features: Vec<String>,
    /// Release of the kernel.
    pub kernel: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// How packets reach the gateway.
    pub path: String,
    /// Day of the run, UTC, as 2026-01-31.
    pub date: String,
    /// Versions of what was measured, by name.
    pub versions: BTreeMap<String, String>,
}

/// Features of the processor worth naming.
const FEATURES: [&str; 5] = ["avx2", "avx512f", "avx512ifma", "vaes", "sha_ni"];

impl Machine {
    /// Reads `/proc`; what cannot be read is said to be unknown.
    pub fn read(path: &str, versions: BTreeMap<String, String>) -> Self {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let flags = field(&cpu_info, "flags").unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|each| each == flag);
        let seconds = std::time::UNIX_EPOCH.elapsed().map(|elapsed| elapsed.as_secs()).unwrap_or_default();
        let kib = field(&memory, "MemTotal").and_then(|text| text.split_whitespace().next()?.parse().ok());
        Self {
            cpu: field(&cpu_info, "model name").unwrap_or("an unknown processor").to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: has("hypervisor"),
            features: FEATURES.into_iter().filter(|flag| has(flag)).map(str::to_owned).collect(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            memory_mib: kib.unwrap_or(0_u64) / 1024,
            path: path.to_owned(),
            date: date(seconds),
            versions,
        }
    }

    /// One paragraph for people.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{}, {} {} ({}), {} MiB of memory, Linux {}, {}; {}.",
            self.cpu,
            self.cores,
            if self.virtual_machine { "cores of a virtual machine" } else { "cores" },
            self.features.join(", "),
            self.memory_mib,
            self.kernel,
            self.path,
            self.date,
        );
        if !self.versions.is_empty() {
            let versions: Vec<_> =
                self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
            let _ = write!(text, " Versions: {}.", versions.join(", "));
        }
        text
    }

    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self {
            cpu: "A processor".into(),
            cores: 2,
            virtual_machine: true,
            features: vec!["avx2".into()],
            kernel: "6.18.0".into(),
            memory_mib: 4096,
            path: "veth".into(),
            date: "2026-01-31".into(),
            versions: [("wgx".to_owned(), "0.1.0".to_owned())].into(),
        }
    }
}

/// The value of the first `NAME : VALUE` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
}

/// A day of the Gregorian calendar, UTC, from seconds since 1970.
fn date(seconds: u64) -> String {
    // Days since 0000-03-01, in eras of 400 years: leap days then come last in a year.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Counts what the hypervisor took, from when it was made.
#[derive(Debug, Clone, Copy)]
pub struct StealClock {
    stolen: u64,
    all: u64,
}

impl StealClock {
    /// Counts from now on.
    pub fn start() -> Self {
        let (stolen, all) = ticks(&fs::read_to_string("/proc/stat").unwrap_or_default());
        Self { stolen, all }
    }

    /// Percent of all processors' time since then.
    pub fn percent(&self) -> f64 {
        let now = Self::start();
        let all = now.all.saturating_sub(self.all).max(1);
        100.0 * now.stolen.saturating_sub(self.stolen) as f64 / all as f64
    }
}

/// Stolen ticks and all of them, from the first line of `/proc/stat`: user nice system idle iowait irq softirq steal.
fn ticks(stat: &str) -> (u64, u64) {
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .map_while(|tick| tick.parse().ok())
        .collect();
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let dates = [0, 951_782_399, 951_782_400, 1_709_164_800, 1_767_225_599].map(date);
        assert_eq!(dates, ["1970-01-01", "2000-02-28", "2000-02-29", "2024-02-29", "2025-12-31"]);
    }

    #[test]
    fn stolen_time_is_the_eighth_number() {
        assert_eq!(ticks("cpu  10 0 20 60 0 0 3 7 0 0\ncpu0 1 1 1\n"), (7, 100));
        assert_eq!(ticks(""), (0, 0));
    }

    #[test]
    fn this_machine_has_a_processor_and_a_kernel() {
        let machine = Machine::read("veth", BTreeMap::new());
        assert!(machine.cores > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty());
        assert!(machine.describe().contains("veth"));
    }
}
