//! Which way packets took through the gateway, and whether that is what AF_XDP promises.

use anyhow::{Result, ensure};
use tests::Status;

use crate::table::Table;

/// Of 100 data packets, at least this many must not have gone through the kernel's network stack.
const FAST_PERCENT_MIN: f64 = 95.0;

/// Ways out of the engine: counter, over AF_XDP or not, and what it means.
const WAYS: [(&str, bool, &str); 5] = [
    ("opened_to_link", true, "from a client, out to the server"),
    ("sealed_to_link", true, "from the server, out to a client"),
    ("opened_to_tunnel", false, "from a client, to the TUN device"),
    ("sealed_to_socket", false, "to a client, out of the UDP socket"),
    ("staged", false, "waited for a handshake"),
];

/// Prints what went where between two looks, and fails when the slow path carried more than its share.
pub fn report(before: &Status, after: &Status) -> Result<()> {
    let delta = after.since(before);
    let all = (delta.fast() + delta.slow()).max(1) as f64;
    let mut table = Table::new("Ways through the gateway", &["way", "over", "packets", "share"]);
    for (counter, fast, meaning) in WAYS {
        let count = delta.verdict(counter);
        let over = if fast { "AF_XDP" } else { "kernel" };
        let share = format!("{:.2} %", 100.0 * count as f64 / all);
        table.row([meaning.to_owned(), over.to_owned(), count.to_string(), share]);
    }
    for (counter, count) in delta.verdicts().iter().filter(|(name, _)| name.starts_with("drop_")) {
        table.row([counter.replace('_', " "), "nowhere".to_owned(), count.to_string(), String::new()]);
    }
    print!("{table}");
    let fast_percent = 100.0 * delta.fast() as f64 / all;
    println!("\n  {fast_percent:.2} % of the packets went over AF_XDP");
    ensure!(
        delta.fast() > 0 && fast_percent >= FAST_PERCENT_MIN,
        "AF_XDP carried {fast_percent:.2} % of the packets, less than {FAST_PERCENT_MIN} %"
    );
    Ok(())
}
