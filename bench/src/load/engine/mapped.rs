//! BPF arrays in our own memory: millions of elements without a system call for each.

use std::{marker::PhantomData, os::fd::AsFd as _};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use memmap2::{MmapMut, MmapOptions};
use rustix::param::page_size;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// All elements of a BPF array of `T`, whose length must be a multiple of 8 as the kernel rounds elements up to that.
pub struct MappedArray<T> {
    memory: MmapMut,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable> MappedArray<T> {
    const ELEMENT_LEN: () = assert!(size_of::<T>().is_multiple_of(8));

    /// Maps the array `name` of an object.
    ///
    /// # Errors
    /// There is no such array that can be mapped.
    pub fn of(ebpf: &Ebpf, name: &str) -> Result<Self> {
        let () = Self::ELEMENT_LEN;
        let map = array(ebpf, name)?;
        let len = map.info().with_context(|| format!("map {name}"))?.max_entries() as usize;
        let bytes = (len * size_of::<T>()).next_multiple_of(page_size());
        // SAFETY: what is mapped belongs to the map, which the mapping keeps alive and which never shrinks. The kernel's
        // programs write it only while frames are sent or captured, or switches watched, and `LiveFrames` and `Slices`
        // lend it to nobody meanwhile.
        let memory = unsafe { MmapOptions::new().len(bytes).map_mut(&map.fd().as_fd()) };
        let memory = memory.with_context(|| format!("cannot map the {bytes} bytes of {name}"))?;
        Ok(Self { memory, len, elements: PhantomData })
    }

    /// All of them.
    pub fn elements(&self) -> Result<&[T]> {
        let (elements, _) = <[T]>::ref_from_prefix_with_elems(&self.memory, self.len)
            .map_err(|error| anyhow!("a mapped array: {error}"))?;
        Ok(elements)
    }

    /// All of them, to change.
    pub fn elements_mut(&mut self) -> Result<&mut [T]> {
        let (elements, _) = <[T]>::mut_from_prefix_with_elems(&mut self.memory, self.len)
            .map_err(|error| anyhow!("a mapped array: {error}"))?;
        Ok(elements)
    }
}

fn array<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData> {
    let map = ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
    match map {
        Map::Array(map) => Ok(map),
        _ => bail!("{name} is no array"),
    }
}
