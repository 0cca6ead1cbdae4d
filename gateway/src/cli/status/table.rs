//! JSON to tables. The only place that knows how a status is laid out; it takes any shape, so that a gateway of
//! another version is shown as well as can be.
//!
//! A list of objects is a table of their plain members. Their members that are objects of numbers (counters)
//! become tables of their own: a row per counter that is not zero, a column per object.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value};

/// Members in this order where they exist, others after them by name.
const FIRST: &[&str] = &[
    "name",
    "rung",
    "up",
    "worker",
    "serves",
    "cpu",
    "interface",
    "queue",
    "roles",
    "attach_mode",
    "interfaces",
    "links",
    "workers",
    "sockets",
    "tunnel",
    "public_key",
    "endpoint",
    "path",
    "latest_handshake",
    "rx_bytes",
    "tx_bytes",
];

/// Counters of so many objects stand side by side; more would not fit a terminal.
const COLUMN_COUNT_MAX: usize = 8;

/// Numbers that name or measure something rather than count: written as they are.
const NAMES: &[&str] = &["pid", "listen_port", "mtu", "worker", "cpu", "queue", "index"];

/// A status as text of several lines. `now` is the Unix time in seconds.
pub fn render(status: &Value, now: u64) -> String {
    let status = &with_ages(status, now);
    let mut lines = Vec::new();
    let Value::Object(members) = status else {
        return format!("{}\n", cell("", status));
    };
    for (name, value) in sorted(members).into_iter().filter(|(_, value)| is_plain(value)) {
        lines.push(format!("{}: {}", title(name), cell(name, value)));
    }
    for (name, value) in sorted(members).into_iter().filter(|(_, value)| !is_plain(value)) {
        section(&mut lines, name, value);
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Points in time as the ages people ask for.
fn with_ages(value: &Value, now: u64) -> Value {
    match value {
        Value::Object(members) => {
            let aged = members.iter().map(|(name, value)| match (name.as_str(), value.as_u64()) {
                ("latest_handshake", Some(then)) => {
                    (name.clone(), format!("{} ago", duration(now.saturating_sub(then))).into())
                }
                _ => (name.clone(), with_ages(value, now)),
            });
            Value::Object(aged.collect())
        }
        Value::Array(items) => items.iter().map(|item| with_ages(item, now)).collect(),
        other => other.clone(),
    }
}

/// Seconds in the two largest units that matter.
fn duration(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, _) => format!("{minutes} min {} s", secs % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn section(lines: &mut Vec<String>, name: &str, value: &Value) {
    match value {
        Value::Array(items) if items.is_empty() => {
            lines.extend([String::new(), title(name), "  none".to_owned()]);
        }
        Value::Array(items) if items.iter().all(Value::is_object) => {
            let objects: Vec<_> = items.iter().filter_map(Value::as_object).collect();
            rows(lines, name, &objects);
            counters(lines, name, &objects);
        }
        Value::Object(members) if members.values().all(is_plain) => {
            let mut table = plain_table();
            for (name, value) in members.iter().filter(|(_, value)| !is_zero(value)) {
                table.add_row([title(name), cell(name, value)]);
            }
            push(lines, name, &table);
        }
        Value::Object(members) => {
            for (inner, value) in members {
                section(lines, &format!("{name} {inner}"), value);
            }
        }
        other => lines.extend([String::new(), title(name), format!("  {}", cell(name, other))]),
    }
}

/// One row per object, of the members that are plain.
fn rows(lines: &mut Vec<String>, name: &str, objects: &[&Map<String, Value>]) {
    let mut columns: Vec<&str> = Vec::new();
    for object in objects {
        for (column, value) in sorted(object) {
            if is_plain(value) && !columns.contains(&column) {
                columns.push(column);
            }
        }
    }
    if columns.is_empty() {
        return;
    }
    columns.sort_by_key(|column| position(column));
    let mut table = plain_table();
    table.set_header(columns.iter().map(|column| title(column)));
    for object in objects {
        table.add_row(
            columns
                .iter()
                .map(|column| object.get(*column).map_or(String::new(), |value| cell(column, value))),
        );
    }
    for (index, column) in columns.iter().enumerate() {
        let numbers = objects
            .iter()
            .filter_map(|object| object.get(*column))
            .all(|value| value.is_number() || value.is_null());
        if numbers && let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    push(lines, name, &table);
}

/// A table per member that holds counters: what was counted down, who counted it across.
fn counters(lines: &mut Vec<String>, name: &str, objects: &[&Map<String, Value>]) {
    let groups: BTreeSet<&str> = objects
        .iter()
        .flat_map(|object| object.iter())
        .filter(|(_, value)| value.is_object())
        .map(|(group, _)| group.as_str())
        .collect();
    for group in groups {
        for objects in objects.chunks(COLUMN_COUNT_MAX) {
            let counted: Vec<_> =
                objects.iter().map(|object| object.get(group).map(flattened).unwrap_or_default()).collect();
            let names: BTreeSet<&String> = counted.iter().flat_map(BTreeMap::keys).collect();
            if names.is_empty() {
                continue;
            }
            let mut table = plain_table();
            table.set_header([String::new()].into_iter().chain(objects.iter().map(|object| label(object))));
            for counter in names {
                let cells = counted
                    .iter()
                    .map(|counts| counts.get(counter).map_or("-".to_owned(), |value| cell(counter, value)));
                table.add_row([title(counter)].into_iter().chain(cells));
            }
            for index in 1..=objects.len() {
                if let Some(column) = table.column_mut(index) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
            push(lines, &format!("{name}: {group}"), &table);
        }
    }
}

/// The members that say something, those of inner objects under the names of both.
fn flattened(value: &Value) -> BTreeMap<String, &Value> {
    let mut flat = BTreeMap::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        if value.is_object() {
            let inner = flattened(value).into_iter();
            flat.extend(inner.map(|(inner, value)| (format!("{name}_{inner}"), value)));
        } else if !is_zero(value) {
            flat.insert(name.clone(), value);
        }
    }
    flat
}

/// What tells one object from its neighbours.
fn label(object: &Map<String, Value>) -> String {
    let parts: Vec<_> = ["name", "interface", "queue", "worker", "public_key"]
        .iter()
        .filter_map(|key| Some((key, object.get(*key).filter(|value| is_plain(value))?)))
        .take(2)
        .map(|(key, value)| match *key {
            "queue" | "worker" => format!("{key} {}", cell(key, value)),
            _ => cell(key, value),
        })
        .collect();
    parts.join(" ")
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn push(lines: &mut Vec<String>, name: &str, table: &Table) {
    lines.extend([String::new(), title(name)]);
    for line in table.lines() {
        lines.push(format!(" {}", line.trim_end()));
    }
}

fn position(column: &str) -> usize {
    FIRST.iter().position(|first| *first == column).unwrap_or(FIRST.len())
}

fn sorted(members: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut sorted: Vec<_> = members.iter().map(|(name, value)| (name.as_str(), value)).collect();
    sorted.sort_by_key(|(name, _)| position(name));
    sorted
}

fn title(name: &str) -> String {
    name.replace('_', " ")
}

/// Fits a cell: no object, and no list of objects.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => {
            !items.is_empty() && items.iter().all(|item| !item.is_object() && !item.is_array())
        }
        _ => true,
    }
}

fn is_zero(value: &Value) -> bool {
    value.as_u64() == Some(0) || value.is_null()
}

fn cell(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(|item| cell(name, item)).collect::<Vec<_>>().join(", "),
        Value::Number(number) => match number.as_u64() {
            Some(bytes) if name.ends_with("bytes") => bytes_text(bytes),
            Some(secs) if name.ends_with("_secs") => duration(secs),
            Some(number) if NAMES.contains(&name) => number.to_string(),
            Some(count) => grouped(count),
            None => number.to_string(),
        },
        Value::Object(_) => "...".to_owned(),
    }
}

/// Names of interfaces may hold what would move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn bytes_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (bytes.max(1).ilog2() / 10) as usize;
    if power == 0 {
        format!("{bytes} B")
    } else {
        format!("{:.1} {}", bytes as f64 / 1024f64.powi(power as i32), units[power])
    }
}

/// Thousands apart, by a space as ISO 80000 has it.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        json!({
            "name": "wg0",
            "io": "af-xdp",
            "listen_port": 51820,
            "workers": [
                {"worker": 0, "cpu": 1, "batches": 1_234_567, "verdicts": {"opened_to_link": 1000, "drop_replayed": 2}},
                {"worker": 1, "cpu": 2, "batches": 0, "verdicts": {"opened_to_link": 7, "drop_too_old": 0}},
            ],
            "peers": [{"public_key": "abc=", "endpoint": null, "rx_bytes": 5_242_880, "allowed_ips": ["10.0.0.1/32", "fd00::1/128"]}],
            "handshakes": {"initiations": 3, "invalid_mac1": 0},
        })
    }

    /// The lines that contain `word`, with runs of blanks made one.
    fn lines_with(text: &str, word: &str) -> Vec<String> {
        let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().filter(|line| line.contains(word)).map(squeeze).collect()
    }

    #[test]
    fn workers_make_rows_and_their_counters_columns() {
        let text = render(&status(), 1000);
        assert_eq!(lines_with(&text, "opened to link"), ["opened to link 1 000 7"]);
        assert_eq!(lines_with(&text, "drop replayed"), ["drop replayed 2 -"]);
        assert_eq!(lines_with(&text, "1 234 567"), ["0 1 1 234 567"]);
    }

    #[test]
    fn counters_that_are_zero_everywhere_are_left_out() {
        let text = render(&status(), 1000);
        assert!(!text.contains("drop too old") && !text.contains("invalid mac1"), "{text}");
        assert_eq!(lines_with(&text, "initiations"), ["initiations 3"]);
    }

    #[test]
    fn peers_show_bytes_in_units_and_lists_in_one_cell() {
        let text = render(&status(), 1000);
        assert_eq!(lines_with(&text, "abc="), ["abc= - 10.0.0.1/32, fd00::1/128 5.0 MiB"]);
    }

    #[test]
    fn times_are_shown_as_ages_and_ports_as_they_are() {
        let text = render(
            &json!({"listen_port": 51820, "uptime_secs": 3725, "peers": [{"latest_handshake": 940}]}),
            1000,
        );
        assert_eq!(lines_with(&text, "listen port"), ["listen port: 51820"]);
        assert_eq!(lines_with(&text, "uptime"), ["uptime secs: 1 h 2 min"]);
        assert_eq!(lines_with(&text, "ago"), ["1 min 0 s ago"]);
        assert_eq!([duration(0), duration(59), duration(90_000)], ["0 s", "59 s", "1 d 1 h"]);
    }

    #[test]
    fn counters_within_counters_have_both_names() {
        let text = render(
            &json!({"links": [{"interface": "eth0", "queue": 3, "statistics": {"kernel": {"rx_full": 5}}}]}),
            0,
        );
        assert_eq!(lines_with(&text, "kernel"), ["kernel rx full 5"]);
        assert_eq!(lines_with(&text, "eth0 queue 3"), ["eth0 queue 3"]);
    }

    #[test]
    fn many_workers_make_several_tables() {
        let workers: Vec<_> =
            (0..20).map(|worker| json!({"worker": worker, "verdicts": {"staged": 1}})).collect();
        let text = render(&json!({"workers": workers}), 0);
        assert_eq!(lines_with(&text, "staged").len(), 3);
    }

    #[test]
    fn any_json_is_shown_and_no_control_character_is() {
        for value in
            [json!(null), json!([]), json!([1, "x"]), json!({"a": {"b": {"c": [[1], {}]}}}), json!({"a": []})]
        {
            let text = render(&value, 0);
            assert!(text.len() > 1 && text.ends_with('\n'), "{value}: {text:?}");
        }
        assert!(!render(&json!({"name": "a\u{1b}[2J"}), 0).contains('\u{1b}'));
    }

    #[test]
    fn numbers_are_grouped_and_bytes_scaled() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(12_345_678)],
            ["0", "999", "1 000", "12 345 678"]
        );
        assert_eq!([bytes_text(0), bytes_text(1023), bytes_text(1024)], ["0 B", "1023 B", "1.0 KiB"]);
        assert_eq!(bytes_text(u64::MAX), "16.0 EiB");
    }
}
