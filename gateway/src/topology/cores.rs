//! Which worker gets which core.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Cpu;

/// Highest CPU number a list may name: more than any kernel is built for, few enough to write out. Which CPUs
/// there are is the plan's question.
pub const LISTED_MAX: u32 = 8191;

/// CPUs chosen by the operator, in the order given: `1,3-5`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CoreList(Vec<u32>);

/// A core list that cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CoreListError {
    /// Nothing between two commas, or nothing at all.
    #[error("a CPU number is missing in {list:?}: write numbers and ranges as in 1,3-5")]
    Empty {
        /// The list as given.
        list: String,
    },
    /// Not a number.
    #[error("{item:?} is no CPU number: write numbers and ranges as in 1,3-5")]
    NotANumber {
        /// The part that is wrong.
        item: String,
    },
    /// The end of a range is below its start.
    #[error("the range {item:?} runs backwards: write the lower CPU first")]
    Backwards {
        /// The part that is wrong.
        item: String,
    },
    /// Beyond what any kernel has.
    #[error("CPU {cpu} is out of range: CPUs 0 to {LISTED_MAX} can be named")]
    TooHigh {
        /// The number given.
        cpu: u32,
    },
    /// A CPU given twice.
    #[error(
        "CPU {cpu} is listed twice: name each once, workers share cores by themselves when there are too few"
    )]
    Twice {
        /// The number given.
        cpu: u32,
    },
}

impl CoreList {
    /// Kernel CPU numbers in the order given, without duplicates, each at most [`LISTED_MAX`].
    pub fn numbers(&self) -> &[u32] {
        &self.0
    }
}

impl FromStr for CoreList {
    type Err = CoreListError;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let mut numbers = Vec::new();
        let mut seen = BTreeSet::new();
        for item in list.split(',').map(str::trim) {
            if item.is_empty() {
                return Err(CoreListError::Empty { list: list.to_owned() });
            }
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (number(first, item)?, number(last, item)?),
                None => (number(item, item)?, number(item, item)?),
            };
            if last < first {
                return Err(CoreListError::Backwards { item: item.to_owned() });
            }
            for cpu in first..=last {
                if !seen.insert(cpu) {
                    return Err(CoreListError::Twice { cpu });
                }
                numbers.push(cpu);
            }
        }
        Ok(Self(numbers))
    }
}

/// A CPU number in range, so that no range can be long enough to hurt.
fn number(text: &str, item: &str) -> Result<u32, CoreListError> {
    let text = text.trim();
    // `u32::from_str` would take "+1".
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CoreListError::NotANumber { item: item.to_owned() });
    }
    let cpu = text.parse().map_err(|_| CoreListError::NotANumber { item: item.to_owned() })?;
    if cpu > LISTED_MAX { Err(CoreListError::TooHigh { cpu }) } else { Ok(cpu) }
}

impl TryFrom<String> for CoreList {
    type Error = CoreListError;

    fn try_from(list: String) -> Result<Self, Self::Error> {
        list.parse()
    }
}

impl From<CoreList> for String {
    fn from(list: CoreList) -> Self {
        list.to_string()
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, cpu) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "," };
            write!(formatter, "{separator}{cpu}")?;
        }
        Ok(())
    }
}

/// Kernel numbers of up to `count` CPUs, best first: whole cores at `numa_node`, whole cores elsewhere, then
/// hyperthreads in the same order. A hyperthread shares the execution units its core's worker needs for the
/// cipher, which costs more than crossing to another node.
///
/// Where the node is unknown, all nodes are alike and lower numbers come first.
pub fn choose(cpus: &[Cpu], numa_node: Option<u32>, count: usize) -> Vec<u32> {
    // Siblings are counted among the allowed CPUs: the only hyperthread we may use of a core is a whole core.
    let mut taken = std::collections::BTreeMap::<u32, u32>::new();
    let mut ranked: Vec<_> = cpus
        .iter()
        .map(|cpu| {
            let rank = taken.entry(cpu.core_index).or_default();
            let sibling = *rank;
            *rank += 1;
            let remote = numa_node.is_some() && cpu.numa_node != numa_node;
            (sibling, remote, cpu.number)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|(.., number)| number).collect()
}

/// One CPU for each of `worker_count` workers, in turn; workers share CPUs when there are too few.
///
/// Empty when `cpus` is.
pub fn assign(cpus: &[u32], worker_count: usize) -> Vec<u32> {
    cpus.iter().copied().cycle().take(worker_count).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `nodes` NUMA nodes of `cores` cores of two hyperthreads, numbered as Linux does on x86: cores first.
    fn machine(nodes: u32, cores: u32) -> Vec<Cpu> {
        let total = nodes * cores;
        (0..total * 2)
            .map(|number| Cpu {
                number,
                core_index: number % total,
                sibling_index: number / total,
                numa_node: Some(number % total / cores),
            })
            .collect()
    }

    #[test]
    fn cores_of_the_nics_node_come_first_and_hyperthreads_last() {
        assert_eq!(choose(&machine(2, 2), Some(1), 8), [2, 3, 0, 1, 6, 7, 4, 5]);
    }

    #[test]
    fn without_a_node_lower_numbers_come_first() {
        assert_eq!(choose(&machine(2, 2), None, 3), [0, 1, 2]);
    }

    #[test]
    fn a_lone_hyperthread_of_a_forbidden_core_counts_as_a_core() {
        let mut cpus = machine(1, 2);
        cpus.retain(|cpu| cpu.number != 0);
        assert_eq!(choose(&cpus, Some(0), 2), [1, 2]);
    }

    #[test]
    fn too_few_cpus_are_shared_in_turn() {
        assert_eq!(assign(&[3, 5], 5), [3, 5, 3, 5, 3]);
        assert_eq!(assign(&[], 5), Vec::<u32>::new());
    }

    #[test]
    fn core_lists_are_read_in_order() {
        let list: CoreList = "7, 1,3-5".parse().expect("list");
        assert_eq!(list.numbers(), [7, 1, 3, 4, 5]);
        assert_eq!(list.to_string(), "7,1,3,4,5");
    }

    #[test]
    fn bad_core_lists_are_refused_with_the_part_that_is_wrong() {
        let cases = [
            ("", "a CPU number is missing in \"\""),
            ("1,,2", "a CPU number is missing in \"1,,2\""),
            ("one", "\"one\" is no CPU number"),
            ("1-", "\"1-\""),
            ("-1", "\"-1\""),
            ("+1", "\"+1\" is no CPU number"),
            ("5-3", "\"5-3\" runs backwards"),
            ("1,1", "CPU 1 is listed twice"),
            ("0-3,2", "CPU 2 is listed twice"),
            ("8192", "CPU 8192 is out of range"),
            ("0-4294967295", "CPU 4294967295 is out of range"),
            ("99999999999", "is no CPU number"),
        ];
        for (list, expected) in cases {
            let error = list.parse::<CoreList>().expect_err(list).to_string();
            assert!(error.contains(expected), "{list:?} gave: {error}");
            assert!(!error.contains('\n'));
        }
    }

    proptest! {
        #[test]
        fn chosen_cpus_are_distinct_and_allowed(
            nodes in 1u32..4, cores in 1u32..9, mask in any::<u64>(), node in 0u32..4, count in 0usize..80,
        ) {
            let cpus: Vec<Cpu> =
                machine(nodes, cores).into_iter().filter(|cpu| mask >> (cpu.number % 64) & 1 == 1).collect();
            let chosen = choose(&cpus, Some(node), count);
            let distinct: BTreeSet<u32> = chosen.iter().copied().collect();
            prop_assert_eq!(distinct.len(), chosen.len());
            prop_assert_eq!(chosen.len(), count.min(cpus.len()));
            prop_assert!(chosen.iter().all(|number| cpus.iter().any(|cpu| cpu.number == *number)));
        }

        #[test]
        fn no_core_is_used_twice_while_another_is_free(
            nodes in 1u32..4, cores in 1u32..9, node in 0u32..4, count in 0usize..80,
        ) {
            let cpus = machine(nodes, cores);
            let chosen = choose(&cpus, Some(node), count);
            let total = (nodes * cores) as usize;
            let used: BTreeSet<u32> = chosen.iter().map(|number| number % (nodes * cores)).collect();
            prop_assert_eq!(used.len(), chosen.len().min(total));
        }

        #[test]
        fn any_core_list_is_read_or_refused(list in "[0-9,\\- ]{0,20}") {
            if let Ok(parsed) = list.parse::<CoreList>() {
                prop_assert_eq!(parsed.to_string().parse::<CoreList>(), Ok(parsed));
            }
        }
    }
}
