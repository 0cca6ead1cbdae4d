//! One batch through one backend, against the oracle.

use aead::{Aead, Key, Packet, TAG_LEN};

use crate::{
    guarded::{Guarded, Placement},
    oracle,
};

/// A packet to seal and to open again.
#[derive(Clone, Debug)]
pub struct Plain {
    /// Whose key, in the batch's list.
    pub key_index: usize,
    pub counter: u64,
    pub text: Vec<u8>,
    pub placement: Placement,
    pub tampering: Option<Tampering>,
}

/// What happens to a sealed packet on its way.
#[derive(Clone, Copy, Debug)]
pub enum Tampering {
    /// One bit of the packet, counted modulo their number, is flipped.
    Bit(usize),
    /// One bit of the tag.
    TagBit(usize),
    /// The packet has its neighbour's tag and the neighbour has this one's.
    SwappedTags,
    /// So many bytes are missing at the end.
    Truncated(usize),
    /// So many zero bytes are added.
    Extended(usize),
    /// It is opened with another counter.
    Counter(u64),
    /// It is opened with another key of the list.
    Key(usize),
}

/// A batch with its keys.
pub struct Batch {
    pub keys: Vec<[u8; 32]>,
    pub packets: Vec<Plain>,
}

/// A packet as it arrives.
struct Arrival {
    key_index: usize,
    counter: u64,
    bytes: Vec<u8>,
    authentic: bool,
}

/// A batch with everything that a backend must make of it.
pub struct Expected<'a> {
    batch: &'a Batch,
    keys: Vec<Key>,
    sealed: Vec<Vec<u8>>,
    arrivals: Vec<Arrival>,
}

impl<'a> Expected<'a> {
    /// Asks the oracle.
    pub fn of(batch: &'a Batch) -> Self {
        let packets = &batch.packets;
        let sealed: Vec<Vec<u8>> = packets
            .iter()
            .map(|plain| oracle::seal(&batch.keys[plain.key_index], plain.counter, &plain.text))
            .collect();
        let mut arrivals: Vec<Arrival> = packets
            .iter()
            .zip(&sealed)
            .map(|(plain, sealed)| Arrival {
                key_index: plain.key_index,
                counter: plain.counter,
                bytes: sealed.clone(),
                authentic: true,
            })
            .collect();
        for (index, plain) in packets.iter().enumerate() {
            if let Some(tampering) = plain.tampering {
                tamper(&mut arrivals, index, tampering, batch.keys.len());
            }
        }
        for ((arrival, plain), sealed) in arrivals.iter_mut().zip(packets).zip(&sealed) {
            arrival.authentic = arrival.bytes == *sealed
                && arrival.counter == plain.counter
                && batch.keys[arrival.key_index] == batch.keys[plain.key_index];
        }
        Self { batch, keys: batch.keys.iter().map(Key::new).collect(), sealed, arrivals }
    }

    /// How many packets are to be refused.
    pub fn forged_count(&self) -> usize {
        self.arrivals.iter().filter(|arrival| !arrival.authentic).count()
    }

    /// Seals and opens with `aead`, in `memory`.
    ///
    /// # Errors
    /// What went wrong with which packet.
    pub fn check(&self, aead: Aead, memory: &mut Guarded) -> Result<(), String> {
        self.check_seal(aead, memory)
            .and_then(|()| self.check_open(aead, memory))
            .map_err(|wrong| format!("{}: batch of {}: {wrong}", aead.name(), self.sealed.len()))
    }

    fn check_seal(&self, aead: Aead, memory: &mut Guarded) -> Result<(), String> {
        let packets = &self.batch.packets;
        for (index, plain) in packets.iter().enumerate() {
            // The room for the tag holds garbage: it must not matter.
            let buffer = [plain.text.as_slice(), &[0xdd; TAG_LEN]].concat();
            memory.place(index, plain.placement, &buffer);
        }
        let numbers = packets.iter().map(|plain| (plain.key_index, plain.counter));
        let sealed_count = aead.seal(&mut self.packets(numbers, memory));
        if sealed_count != packets.len() {
            return Err(format!("{sealed_count} were sealed"));
        }
        for (index, (plain, sealed)) in packets.iter().zip(&self.sealed).enumerate() {
            let place = || place(index, plain.text.len(), plain.placement);
            if memory.buffer(index) != sealed {
                return Err(format!("{} was sealed otherwise than by the oracle", place()));
            }
            if !memory.is_surrounding_untouched(index) {
                return Err(format!("sealing wrote outside of {}", place()));
            }
        }
        Ok(())
    }

    fn check_open(&self, aead: Aead, memory: &mut Guarded) -> Result<(), String> {
        let packets = &self.batch.packets;
        for (index, (plain, arrival)) in packets.iter().zip(&self.arrivals).enumerate() {
            memory.place(index, plain.placement, &arrival.bytes);
        }
        let numbers = self.arrivals.iter().map(|arrival| (arrival.key_index, arrival.counter));
        let mut authentic = vec![true; 3];
        aead.open(&mut self.packets(numbers, memory), &mut authentic);
        if authentic.len() != packets.len() {
            return Err(format!("{} outcomes", authentic.len()));
        }
        for (index, (plain, arrival)) in packets.iter().zip(&self.arrivals).enumerate() {
            let place = || place(index, plain.text.len(), plain.placement);
            if authentic[index] != arrival.authentic {
                let outcome = if authentic[index] { "accepted" } else { "refused" };
                return Err(format!("{} with {:?} was {outcome}", place(), plain.tampering));
            }
            if !memory.is_surrounding_untouched(index) {
                return Err(format!("opening wrote outside of {}", place()));
            }
            let buffer = memory.buffer(index);
            if !arrival.authentic && buffer.iter().any(|byte| *byte != 0) {
                return Err(format!("{} was refused with {:?} and not wiped", place(), plain.tampering));
            }
            if arrival.authentic && buffer[..plain.text.len()] != plain.text {
                return Err(format!("{} was opened to another text", place()));
            }
        }
        Ok(())
    }

    fn packets<'p>(
        &'p self,
        numbers: impl Iterator<Item = (usize, u64)>,
        memory: &'p mut Guarded,
    ) -> Vec<Packet<'p>> {
        let buffers = memory.buffers_mut(self.sealed.len());
        let packets = numbers.zip(buffers);
        packets
            .map(|((key_index, counter), buffer)| Packet { key: &self.keys[key_index], counter, buffer })
            .collect()
    }
}

fn place(index: usize, text_len: usize, placement: Placement) -> String {
    format!("packet {index} ({text_len} bytes, {placement:?})")
}

fn tamper(arrivals: &mut [Arrival], index: usize, tampering: Tampering, key_count: usize) {
    let neighbour = (index + 1) % arrivals.len();
    let flip = |bytes: &mut [u8], bit: usize| {
        if !bytes.is_empty() {
            bytes[bit / 8 % bytes.len()] ^= 1 << (bit % 8);
        }
    };
    let Arrival { key_index, counter, bytes, .. } = &mut arrivals[index];
    let len = bytes.len();
    match tampering {
        Tampering::Bit(bit) => flip(bytes, bit),
        Tampering::TagBit(bit) => flip(&mut bytes[len.saturating_sub(TAG_LEN)..], bit),
        Tampering::Truncated(count) => bytes.truncate(len.saturating_sub(count)),
        Tampering::Extended(count) => bytes.resize(len + count, 0),
        Tampering::Counter(change) => *counter ^= change,
        Tampering::Key(step) => *key_index = (*key_index + step) % key_count,
        Tampering::SwappedTags => {
            let tag = |arrival: &Arrival| arrival.bytes.last_chunk::<TAG_LEN>().copied();
            if let (Some(own), Some(other)) = (tag(&arrivals[index]), tag(&arrivals[neighbour])) {
                let mut set = |index: usize, tag| {
                    if let Some(room) = arrivals[index].bytes.last_chunk_mut() {
                        *room = tag;
                    }
                };
                set(index, other);
                set(neighbour, own);
            }
        }
    }
}
