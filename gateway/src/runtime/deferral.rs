//! Interrupts put off while workers poll: two settings of each interface, put back as they were.
//!
//! A queue whose NAPI instance is polled stays without interrupts for as many rounds of `gro_flush_timeout` as
//! `napi_defer_hard_irqs` says, anew with every poll. So the timer is the watchdog: the kernel takes the queue of a
//! worker that is stopped or starved back within that time (`Documentation/networking/napi.rst`, "IRQ mitigation";
//! `busy_poll_stop`, `napi_watchdog` and `napi_complete_done`, net/core/dev.c).

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::sysfs::Changes;
use crate::config::Link;
use crate::topology::interface::sysfs_directory;

/// Files below `/sys/class/net/IF` (`Documentation/ABI/testing/sysfs-class-net`) and the least that does: two rounds
/// of 200 us, in nanoseconds.
const SETTINGS: [(&str, u64); 2] = [("napi_defer_hard_irqs", 2), ("gro_flush_timeout", 200_000)];

/// Interfaces whose interrupts are put off until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Deferral {
    changes: Changes,
}

impl Deferral {
    /// Puts off the interrupts of `links`, where nobody has put them off further already. Where that is not possible,
    /// one warning says so: sockets are polled all the same, between interrupts.
    pub(super) fn apply<'a>(links: impl IntoIterator<Item = &'a Link>) -> Self {
        Self::of(links.into_iter().map(|link| (link.name.as_str(), directory(link))))
    }

    fn of<'a>(directories: impl Iterator<Item = (&'a str, io::Result<PathBuf>)>) -> Self {
        let (mut changes, mut refused) = (Changes::default(), Vec::new());
        for (name, directory) in directories {
            match directory.and_then(|directory| defer(&directory)) {
                Ok(made) => changes.absorb(&made),
                Err(error) => refused.push(format!("{name}: {error}")),
            }
        }
        if !refused.is_empty() {
            let settings = SETTINGS.map(|(name, value)| format!("{name} to {value}")).join(" and ");
            tracing::warn!(
                "interrupts go on while workers poll; set {settings} in /sys/class/net/IF as root ({})",
                refused.join("; ")
            );
        }
        Self { changes }
    }

    /// Undoes it before a panic ends the process, too. To be called when the hook that does so is in place.
    pub(super) fn undo_on_panic(&self) {
        self.changes.undo_on_panic();
    }
}

/// Raises both settings of an interface where they are lower, or neither.
fn defer(directory: &Path) -> io::Result<Changes> {
    let mut changes = Changes::default();
    for (name, least) in SETTINGS {
        let is_enough = |present: &str| match present.parse::<u64>() {
            Ok(present) => Ok(present >= least),
            Err(_) => Err(io::Error::new(ErrorKind::InvalidData, format!("{present:?} is no number"))),
        };
        changes.make(&directory.join(name), &least.to_string(), is_enough)?;
    }
    Ok(changes)
}

/// The directory of the interface in sysfs. `/sys` may show another network namespace, with an interface of the same
/// name and number, but hardly of the same address: that one's interrupts are none of ours.
fn directory(link: &Link) -> io::Result<PathBuf> {
    let address = link.mac.map(|byte| format!("{byte:02x}")).join(":");
    sysfs_directory(&link.name, link.index)
        .filter(|directory| {
            fs::read_to_string(directory.join("address")).is_ok_and(|text| text.trim() == address)
        })
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "not in /sys of this network namespace"))
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::fake::FakeSysfs;
    use super::*;

    fn apply(sysfs: &FakeSysfs) -> Deferral {
        Deferral::of([("eth0", Ok(sysfs.0.clone()))].into_iter())
    }

    fn values(sysfs: &FakeSysfs) -> [String; 2] {
        SETTINGS.map(|(name, _)| sysfs.value(name))
    }

    #[test]
    fn settings_are_raised_and_put_back() {
        let sysfs =
            FakeSysfs::new("raised", &[("napi_defer_hard_irqs", "1\n"), ("gro_flush_timeout", "0\n")]);
        let deferral = apply(&sysfs);
        assert_eq!(values(&sysfs), ["2", "200000"]);
        drop(deferral);
        assert_eq!(values(&sysfs), ["1", "0"]);
    }

    #[test]
    fn what_puts_interrupts_off_further_is_left_alone() {
        let sysfs =
            FakeSysfs::new("further", &[("napi_defer_hard_irqs", "100\n"), ("gro_flush_timeout", "0\n")]);
        let deferral = apply(&sysfs);
        assert_eq!(values(&sysfs), ["100", "200000"]);
        drop(deferral);
        assert_eq!(values(&sysfs), ["100", "0"]);
    }

    #[test]
    fn what_somebody_else_set_meanwhile_stays() {
        let sysfs =
            FakeSysfs::new("meanwhile", &[("napi_defer_hard_irqs", "0\n"), ("gro_flush_timeout", "0\n")]);
        let deferral = apply(&sysfs);
        fs::write(sysfs.0.join("gro_flush_timeout"), "20000\n").expect("write");
        drop(deferral);
        assert_eq!(values(&sysfs), ["0", "20000"]);
    }

    #[test]
    fn an_interface_with_one_setting_only_is_left_as_it_was() {
        let sysfs = FakeSysfs::new("half", &[("napi_defer_hard_irqs", "0\n")]);
        let _deferral = apply(&sysfs);
        assert_eq!(values(&sysfs), ["0", ""]);
        let sysfs =
            FakeSysfs::new("text", &[("napi_defer_hard_irqs", "0\n"), ("gro_flush_timeout", "soon\n")]);
        let _deferral = apply(&sysfs);
        assert_eq!(values(&sysfs), ["0", "soon"]);
    }

    #[test]
    fn one_interface_that_is_not_to_be_found_does_not_keep_the_others() {
        let sysfs =
            FakeSysfs::new("others", &[("napi_defer_hard_irqs", "0\n"), ("gro_flush_timeout", "0\n")]);
        let missing = Err(io::Error::from(ErrorKind::NotFound));
        let deferral = Deferral::of([("eth0", missing), ("eth1", Ok(sysfs.0.clone()))].into_iter());
        assert_eq!(values(&sysfs), ["2", "200000"]);
        drop(deferral);
        assert_eq!(values(&sysfs), ["0", "0"]);
    }

    /// Names the directory to the process that panics.
    const PANICS_OVER: &str = "WGX_TEST_DEFERRAL";

    #[test]
    fn a_panic_puts_settings_back_before_it_ends_the_process() {
        if let Some(path) = std::env::var_os(PANICS_OVER) {
            crate::runtime::protect::protect_process().expect("protected");
            let deferral = Deferral::of([("eth0", Ok(path.into()))].into_iter());
            deferral.undo_on_panic();
            let worker = std::thread::spawn(|| panic!("as a worker's thread might"));
            let _ = worker.join();
            return;
        }
        let sysfs = FakeSysfs::new("panic", &[("napi_defer_hard_irqs", "1\n"), ("gro_flush_timeout", "0\n")]);
        let name = "runtime::deferral::tests::a_panic_puts_settings_back_before_it_ends_the_process";
        sysfs.dies_of_a_panic(name, PANICS_OVER, "as a worker's thread might");
        assert_eq!(values(&sysfs), ["1", "0"]);
    }

    #[test]
    fn an_interface_of_another_address_is_another_namespaces() {
        let index = crate::topology::Interface::read("lo").expect("lo").index;
        let link = |mac| Link {
            name: "lo".into(),
            index,
            mac,
            mtu: 65536,
            queue_count: 1,
            uplink: true,
            downlink: false,
        };
        assert!(directory(&link([0; 6])).is_ok());
        assert!(directory(&link([2, 0, 0, 0, 0, 1])).is_err());
    }
}
