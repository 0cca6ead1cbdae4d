//! The program's maps as typed handles: name, key and value meet here and nowhere else.

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, XskMap},
    util::nr_cpus,
};
use gateway_ebpf::{Reason, layout};

use super::{Error, Result};

pub type Interfaces<'a> = HashMap<&'a mut MapData, u32, [u8; size_of::<layout::Interface>()]>;
pub type Settings<'a> = Array<&'a mut MapData, [u8; size_of::<layout::Settings>()]>;
pub type Addresses<'a, const N: usize> = HashMap<&'a mut MapData, [u8; N], u8>;
pub type Prefixes<'a, const N: usize> = LpmTrie<&'a mut MapData, [u8; N], u8>;

pub fn interfaces(ebpf: &mut Ebpf) -> Result<Interfaces<'_>> {
    open(ebpf, layout::INTERFACES)
}

pub fn settings(ebpf: &mut Ebpf) -> Result<Settings<'_>> {
    open(ebpf, layout::SETTINGS)
}

pub fn sockets(ebpf: &mut Ebpf) -> Result<XskMap<&mut MapData>> {
    open(ebpf, layout::SOCKETS)
}

pub fn local_ipv4(ebpf: &mut Ebpf) -> Result<Addresses<'_, 4>> {
    open(ebpf, layout::LOCAL_IPV4)
}

pub fn local_ipv6(ebpf: &mut Ebpf) -> Result<Addresses<'_, 16>> {
    open(ebpf, layout::LOCAL_IPV6)
}

pub fn allowed_ipv4(ebpf: &mut Ebpf) -> Result<Prefixes<'_, 4>> {
    open(ebpf, layout::ALLOWED_IPV4)
}

pub fn allowed_ipv6(ebpf: &mut Ebpf) -> Result<Prefixes<'_, 16>> {
    open(ebpf, layout::ALLOWED_IPV6)
}

/// One slot's counters, summed over the CPUs.
pub fn read_counters(ebpf: &Ebpf, slot: u32) -> Result<[u64; Reason::COUNT]> {
    let map = ebpf.map(layout::COUNTERS).ok_or(Error::Foreign { missing: layout::COUNTERS })?;
    let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(counters_error)?;
    let mut counts = [0; Reason::COUNT];
    for (count, &reason) in counts.iter_mut().zip(Reason::ALL) {
        let per_cpu = counters.get(&layout::counter_index(slot, reason), 0).map_err(counters_error)?;
        *count = per_cpu.iter().sum();
    }
    Ok(counts)
}

/// Sets one slot's counters to zero on all CPUs.
pub fn reset_counters(ebpf: &mut Ebpf, slot: u32) -> Result<()> {
    let mut counters: PerCpuArray<_, u64> = open(ebpf, layout::COUNTERS)?;
    let cpu_count = nr_cpus().map_err(|(_, error)| counters_error(error))?;
    for &reason in Reason::ALL {
        let zeros = PerCpuValues::try_from(vec![0; cpu_count]).map_err(counters_error)?;
        counters.set(layout::counter_index(slot, reason), zeros, 0).map_err(counters_error)?;
    }
    Ok(())
}

fn open<'a, M>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<M>
where
    M: TryFrom<&'a mut Map, Error = MapError>,
{
    let map = ebpf.map_mut(name).ok_or(Error::Foreign { missing: name })?;
    M::try_from(map).map_err(|error| Error::map(name, &error))
}

fn counters_error(error: impl std::error::Error + 'static) -> Error {
    Error::map(layout::COUNTERS, &error)
}
