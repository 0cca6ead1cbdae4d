//! The interop matrix: the cells that tests wrote to the log, as one table, and what is missing from it.
//!
//! A cell is a line `interop: PEER VERSION | ROLE | OUTER | INNER | PSK | RUNG` (`tests/src/interop.rs`).

use std::collections::{BTreeMap, BTreeSet};

use crate::table::Table;

/// The peers whose cells have to be there.
const PEERS: [&str; 3] = ["boringtun", "gotatun", "wireguard-go"];
const ROLES: [&str; 2] = ["initiator", "responder"];
const FAMILIES: [&str; 2] = ["v4", "v6"];
const PSK: [&str; 2] = ["none", "psk"];
const RUNGS: [&str; 2] = ["af-xdp", "udp"];

/// Outer family, inner family, preshared key.
type Column = [String; 3];

/// Rows by peer with its version and role; each cell has the rungs it was seen on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matrix(BTreeMap<(String, String), BTreeMap<Column, BTreeSet<String>>>);

impl Matrix {
    /// Adds a line of the log; `false` if it is none of ours.
    pub fn add(&mut self, line: &str) -> bool {
        let Some(cell) = line.strip_prefix("interop: ") else { return false };
        let fields: Vec<_> = cell.split(" | ").map(str::to_owned).collect();
        let Ok([peer, role, outer, inner, psk, rung]) = <[String; 6]>::try_from(fields) else { return false };
        let known = |value: &str, values: &[&str]| values.contains(&value);
        if !(known(&role, &ROLES)
            && known(&outer, &FAMILIES)
            && known(&inner, &FAMILIES)
            && known(&psk, &PSK)
            && known(&rung, &RUNGS))
        {
            return false;
        }
        self.0.entry((peer, role)).or_default().entry([outer, inner, psk]).or_default().insert(rung);
        true
    }

    /// Whether no test said anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The table: `both`, one rung, or `-`.
    pub fn table(&self) -> Table {
        let names: Vec<_> = columns().iter().map(|[outer, inner, psk]| heading(outer, inner, psk)).collect();
        let mut headings = vec!["peer, as"];
        headings.extend(names.iter().map(String::as_str));
        let mut table = Table::new("Interop: inner/outer, * with preshared key", &headings);
        for ((peer, role), cells) in &self.0 {
            let row = columns().map(|column| shown(cells.get(&column)));
            table.row(std::iter::once(format!("{peer}, {role}")).chain(row));
        }
        table
    }

    /// Cells that [`PEERS`] promise and that no test turned green.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for peer in PEERS {
            for role in ROLES {
                let seen: Vec<_> = self
                    .0
                    .iter()
                    .filter(|((name, row), _)| name.split(' ').next() == Some(peer) && row == role)
                    .map(|(_, cells)| cells)
                    .collect();
                for column in columns() {
                    for rung in RUNGS {
                        if !seen.iter().any(|cells| cells.get(&column).is_some_and(|set| set.contains(rung)))
                        {
                            missing.push(format!("{peer} | {role} | {} | {rung}", column.join(" | ")));
                        }
                    }
                }
            }
        }
        missing
    }
}

fn columns() -> [Column; 8] {
    let mut columns = Vec::new();
    for outer in FAMILIES {
        for inner in FAMILIES {
            for psk in PSK {
                columns.push([outer, inner, psk].map(str::to_owned));
            }
        }
    }
    columns.try_into().expect("two of each of three")
}

fn heading(outer: &str, inner: &str, psk: &str) -> String {
    format!("{inner}/{outer}{}", if psk == "psk" { "*" } else { "" })
}

fn shown(rungs: Option<&BTreeSet<String>>) -> String {
    let Some(rungs) = rungs else { return "-".to_owned() };
    if RUNGS.iter().all(|rung| rungs.contains(*rung)) {
        return "both".to_owned();
    }
    rungs.iter().cloned().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<String> {
        let mut lines = Vec::new();
        for peer in PEERS {
            for role in ROLES {
                for [outer, inner, psk] in columns() {
                    for rung in RUNGS {
                        lines.push(format!(
                            "interop: {peer} 1.0 | {role} | {outer} | {inner} | {psk} | {rung}"
                        ));
                    }
                }
            }
        }
        lines
    }

    fn matrix(lines: &[String]) -> Matrix {
        let mut matrix = Matrix::default();
        assert!(lines.iter().all(|line| matrix.add(line)));
        matrix
    }

    #[test]
    fn a_whole_matrix_misses_nothing_and_has_a_row_per_role() {
        let matrix = matrix(&whole());
        assert_eq!(matrix.missing(), [""; 0]);
        let text = matrix.table().to_string();
        assert_eq!(text.matches("both").count(), 3 * 2 * 8, "{text}");
        assert_eq!(text.lines().filter(|line| line.contains("gotatun 1.0, ")).count(), 2, "{text}");
    }

    #[test]
    fn each_missing_cell_is_named() {
        let mut lines = whole();
        let gone = lines.remove(5);
        let missing = matrix(&lines).missing();
        assert_eq!(missing.len(), 1);
        assert_eq!(gone.replace("interop: ", "").replace(" 1.0", ""), missing[0]);
        assert_eq!(matrix(&[]).missing().len(), 96);
    }

    #[test]
    fn a_cell_says_on_which_rung_it_was_green() {
        let lines = ["interop: kernel 6.12 | responder | v6 | v4 | psk | udp".to_owned()];
        let text = matrix(&lines).table().to_string();
        assert!(text.contains("kernel 6.12, responder") && text.contains(" udp"), "{text}");
    }

    #[test]
    fn other_lines_are_left_to_others() {
        let mut matrix = Matrix::default();
        for line in ["note: x: 5", "interop: a | b", "interop: a 1 | both | v4 | v4 | psk | udp", ""] {
            assert!(!matrix.add(line), "{line}");
        }
        assert!(matrix.is_empty());
    }
}
