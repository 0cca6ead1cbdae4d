//! The CPUs this process may use, with their physical cores and NUMA nodes, read through hwloc.

use std::{collections::BTreeMap, io};

use hwlocality::{
    Topology,
    object::{TopologyObject, types::ObjectType},
};
use serde::Serialize;

use super::CPU_NUMBER_MAX;

/// One hardware thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// The kernel's number, as in `/proc/cpuinfo` and `taskset`.
    pub number: u32,
    /// The physical core it is part of; an index that means nothing outside this list.
    pub core_index: u32,
    /// Position among the hardware threads of its core: 0 is the core itself, others are its hyperthreads.
    pub sibling_index: u32,
    /// The NUMA node its memory is nearest to.
    pub numa_node: Option<u32>,
}

/// The CPUs in this thread's affinity mask, ascending. Call it before any thread is pinned.
///
/// # Errors
///
/// When the kernel does not tell the affinity mask (as with more than 1024 CPUs).
pub fn read() -> io::Result<Vec<Cpu>> {
    let mask = rustix::thread::sched_getaffinity(None)?;
    let allowed = move |number: u32| mask.is_set(number as usize);
    // hwloc reads sysfs; where a container hides it, every CPU counts as a core of its own.
    let cpus = Topology::new().map(|topology| from_topology(&topology, &allowed)).unwrap_or_default();
    Ok(if cpus.is_empty() { without_topology(&allowed) } else { cpus })
}

/// The NUMA node hwloc places the network interface `name` at, when it is a device on a bus.
pub fn interface_numa_node(name: &str) -> Option<u32> {
    use hwlocality::topology::builder::TypeFilter;
    let topology = Topology::builder().with_io_type_filter(TypeFilter::KeepImportant).ok()?.build().ok()?;
    let device = topology
        .objects_with_type(ObjectType::OSDevice)
        .find(|device| device.name().is_some_and(|found| found.to_bytes() == name.as_bytes()))?;
    only_node(device.first_non_io_ancestor()?)
}

/// Reads `topology`, keeping the CPUs whose kernel number `allowed` accepts.
fn from_topology(topology: &Topology, allowed: &dyn Fn(u32) -> bool) -> Vec<Cpu> {
    let mut siblings: BTreeMap<u32, u32> = BTreeMap::new();
    let mut cpus: Vec<Cpu> = topology
        .objects_with_type(ObjectType::PU)
        .filter_map(|unit| {
            let number = u32::try_from(unit.os_index()?).ok()?;
            // Without core objects (some virtual machines) each hardware thread is its own core.
            let core = unit.first_ancestor_with_type(ObjectType::Core).unwrap_or(unit);
            let core_index = core.logical_index() as u32;
            // Counted before `allowed`, so that a hyperthread stays one when its core is not ours.
            let sibling_index = siblings.entry(core_index).or_default();
            let cpu = Cpu { number, core_index, sibling_index: *sibling_index, numa_node: only_node(unit) };
            *sibling_index += 1;
            (number <= CPU_NUMBER_MAX && allowed(number)).then_some(cpu)
        })
        .collect();
    cpus.sort_unstable_by_key(|cpu| cpu.number);
    cpus
}

fn without_topology(allowed: &dyn Fn(u32) -> bool) -> Vec<Cpu> {
    (0..=CPU_NUMBER_MAX)
        .filter(|number| allowed(*number))
        .map(|number| Cpu { number, core_index: number, sibling_index: 0, numa_node: None })
        .collect()
}

/// The NUMA node of an object that is local to exactly one.
fn only_node(object: &TopologyObject) -> Option<u32> {
    let nodes = object.nodeset()?;
    let mut nodes = nodes.iter_set().map(usize::from);
    let first = nodes.next()?;
    nodes.next().is_none().then_some(first as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synthetic(description: &str) -> Topology {
        Topology::builder().from_synthetic(description).expect("description").build().expect("topology")
    }

    #[test]
    fn hyperthreads_and_nodes_are_told_apart() {
        let cpus = from_topology(&synthetic("node:2 core:2 pu:2"), &|_| true);
        let row = |cpu: &Cpu| (cpu.number, cpu.core_index, cpu.sibling_index, cpu.numa_node);
        assert_eq!(cpus.len(), 8);
        assert_eq!(row(&cpus[0]), (0, 0, 0, Some(0)));
        assert_eq!(row(&cpus[1]), (1, 0, 1, Some(0)));
        assert_eq!(row(&cpus[6]), (6, 3, 0, Some(1)));
    }

    #[test]
    fn a_hyperthread_stays_one_when_its_core_is_not_allowed() {
        let cpus = from_topology(&synthetic("node:1 core:2 pu:2"), &|number| number != 0);
        assert_eq!(cpus.iter().map(|cpu| cpu.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(cpus[0].sibling_index, 1);
    }

    #[test]
    fn this_machine_has_cpus_and_all_are_allowed() {
        let mask = rustix::thread::sched_getaffinity(None).expect("affinity");
        let cpus = read().expect("cpus");
        assert_eq!(cpus.len(), mask.count() as usize);
        assert!(cpus.iter().all(|cpu| mask.is_set(cpu.number as usize)));
    }

    #[test]
    fn without_sysfs_every_allowed_cpu_is_a_core() {
        let cpus = without_topology(&|number| number == 3 || number == 900);
        assert_eq!(cpus.iter().map(|cpu| cpu.number).collect::<Vec<_>>(), [3, 900]);
    }
}
