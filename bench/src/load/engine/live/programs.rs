//! The BPF programs of the generator in their place: loaded with room for so many frames, attached to both interfaces.

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, DevMap},
    programs::{
        SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp,
        tc::SchedClassifierLink,
    },
};
use gateway_ebpf::load_layout::{
    ARRIVALS, Arrival, CAPTURE_PROGRAMS, CAPTURING, CHUNK_LEN, CHUNKS, Capturing, DEPARTURES, Departure,
    FRAME_LEN_MAX, GENERATE_PROGRAM, KEPT, KEPT_LEN, SENDING, Sending, TARGETS,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::super::mapped::MappedArray;
use super::super::namespace::within;
use super::super::port::interface_index;
use crate::load::Side;
use crate::media::clock::now_ns;

/// What `cargo xtask build-ebpf` built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WGX_LOAD_OBJECT"));

/// From the decision to start to the first frame: more than the kernel takes to prepare the run.
const LEAD_NS: u64 = 1_000_000;

/// The program ends at its deadline by itself; one that does not so long after it never will.
const GIVE_UP_NS: u64 = 1_000_000_000;

/// How much the maps hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Frames to be sent.
    pub departures: u32,
    /// Chunks of them.
    pub chunks: u32,
    /// Frames taken down, on each CPU.
    pub arrivals: u32,
    /// Whole ones among them, on each CPU.
    pub kept: u32,
}

impl Room {
    /// Whether `other` fits.
    pub fn holds(self, other: Self) -> bool {
        self.departures >= other.departures
            && self.chunks >= other.chunks
            && self.arrivals >= other.arrivals
            && self.kept >= other.kept
    }
}

/// The programs and their maps. Dropping them detaches them.
pub struct Programs {
    // Before the programs: detached first.
    _captures: Vec<SchedClassifierLink>,
    ebpf: Ebpf,
    /// Frames to be sent, in their order.
    pub departures: MappedArray<Departure>,
    /// Their bytes.
    pub chunks: MappedArray<[u8; CHUNK_LEN]>,
    /// What arrived, CPU by CPU.
    pub arrivals: MappedArray<Arrival>,
    /// Whole frames among it.
    pub kept: MappedArray<[u8; KEPT_LEN]>,
    room: Room,
    cpu_count: u32,
}

impl Programs {
    /// Loads the programs; `sides` are targets 0 and 1, and what arrives there is taken down once there is room for it.
    ///
    /// # Errors
    /// No such interface, missing capabilities, or a kernel older than 6.6.
    pub fn load(sides: [&Side; 2], room: Room) -> Result<Self> {
        let cpu_count = aya::util::nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))? as u32;
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries(DEPARTURES, room.departures)
            .map_max_entries(CHUNKS, room.chunks)
            .map_max_entries(CAPTURING, cpu_count)
            .map_max_entries(ARRIVALS, room.arrivals * cpu_count)
            .map_max_entries(KEPT, room.kept * cpu_count);
        let mut ebpf = loader.load(OBJECT).context("cannot load the generator's BPF objects")?;
        let generate: &mut Xdp = program(&mut ebpf, GENERATE_PROGRAM)?;
        generate.load().context("the kernel refuses the generator")?;
        let mut captures = Vec::new();
        for (number, side) in sides.into_iter().enumerate() {
            let link = within(side.namespace.as_deref(), || settle(&mut ebpf, number, &side.interface))
                .with_context(|| format!("cannot use interface {}", side.interface))?;
            captures.push(link);
        }
        Ok(Self {
            _captures: captures,
            departures: MappedArray::of(&ebpf, DEPARTURES)?,
            chunks: MappedArray::of(&ebpf, CHUNKS)?,
            arrivals: MappedArray::of(&ebpf, ARRIVALS)?,
            kept: MappedArray::of(&ebpf, KEPT)?,
            ebpf,
            room,
            cpu_count,
        })
    }

    /// How much there is room for.
    pub fn room(&self) -> Room {
        self.room
    }

    /// Begins to take down what arrives, `count` frames on each CPU at most: of so many one is kept, or of more where there
    /// is no room.
    pub fn begin_capture(&mut self, count: u32, keep_every: u32) -> Result<()> {
        let Room { arrivals, kept, .. } = self.room;
        let room = count.min(arrivals);
        // What one CPU keeps must not run into the next one's.
        let keep_every = keep_every.max(room.div_ceil(kept));
        for cpu in 0..self.cpu_count {
            let capturing =
                Capturing { seen: 0, first: cpu * arrivals, room, keep_every, first_kept: cpu * kept };
            self.set::<_, CAPTURING_LEN>(CAPTURING, cpu, &capturing)?;
        }
        Ok(())
    }

    /// How far the capture is on each CPU.
    pub fn capturing(&self) -> Result<Vec<Capturing>> {
        (0..self.cpu_count).map(|cpu| self.get::<_, CAPTURING_LEN>(CAPTURING, cpu)).collect()
    }

    /// Takes down nothing any more; returns how far the capture was on each CPU.
    pub fn end_capture(&mut self) -> Result<Vec<Capturing>> {
        let capturing = self.capturing()?;
        for cpu in 0..self.cpu_count {
            self.set::<_, CAPTURING_LEN>(CAPTURING, cpu, &Capturing::default())?;
        }
        Ok(capturing)
    }

    /// Sends the first `count` departures from now on, `burst` at a time and for `duration_ns` at most; `turns` is how
    /// often the program may come to nothing because nothing is due.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn send(&mut self, count: u32, duration_ns: u64, burst: u32, turns: u32) -> Result<Sending> {
        let start_ns = now_ns() + LEAD_NS;
        let deadline_ns = start_ns + duration_ns;
        self.set::<_, SENDING_LEN>(
            SENDING,
            0,
            &Sending { start_ns, deadline_ns, count, ..Sending::default() },
        )?;
        // Every frame starts as this and is cut to its length.
        let frame = [0; FRAME_LEN_MAX];
        loop {
            let sending: Sending = self.get::<_, SENDING_LEN>(SENDING, 0)?;
            if sending.next >= count || sending.ended != 0 {
                return Ok(sending);
            }
            ensure!(
                now_ns() <= deadline_ns + GIVE_UP_NS,
                "of {count} frames the program got to number {} and no further",
                sending.next
            );
            let options = TestRunOptions {
                data_in: Some(&frame),
                repeat: (count - sending.next).saturating_add(turns),
                attrs: TestRunAttrs::new().xdp_live_frames(burst),
                ..TestRunOptions::new()
            };
            let generate: &mut Xdp = program(&mut self.ebpf, GENERATE_PROGRAM)?;
            generate.test_run(options).context("the kernel does not send (BPF_F_TEST_XDP_LIVE_FRAMES)")?;
        }
    }

    fn get<T: FromBytes, const LEN: usize>(&self, name: &str, index: u32) -> Result<T> {
        let map = self.ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
        let array: Array<_, [u8; LEN]> = map.try_into().with_context(|| format!("map {name}"))?;
        let value = array.get(&index, 0).with_context(|| format!("cannot read map {name}"))?;
        T::read_from_bytes(&value).ok().with_context(|| format!("a value of map {name}"))
    }

    fn set<T: IntoBytes + Immutable, const LEN: usize>(
        &mut self,
        name: &str,
        index: u32,
        value: &T,
    ) -> Result<()> {
        let map = self.ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
        let mut array: Array<_, [u8; LEN]> = map.try_into().with_context(|| format!("map {name}"))?;
        let value: [u8; LEN] =
            value.as_bytes().try_into().with_context(|| format!("the value for map {name}"))?;
        array.set(index, value, 0).with_context(|| format!("cannot write map {name}"))
    }
}

const SENDING_LEN: usize = size_of::<Sending>();
const CAPTURING_LEN: usize = size_of::<Capturing>();

/// Makes an interface of this namespace target `number` and has what arrives there taken down.
fn settle(ebpf: &mut Ebpf, number: usize, interface: &str) -> Result<SchedClassifierLink> {
    let index = interface_index(interface)?;
    let targets = ebpf.map_mut(TARGETS).context("the object has no targets")?;
    let mut targets = DevMap::try_from(targets).context("the targets")?;
    targets.set(number as u32, index, None, 0).context("it cannot be redirected to")?;
    let capture: &mut SchedClassifier = program(ebpf, CAPTURE_PROGRAMS[number])?;
    capture.load().context("the kernel refuses the capture")?;
    let id = capture.attach(interface, TcAttachType::Ingress).context("the capture cannot be attached")?;
    capture.take_link(id).context("the capture's link")
}

/// The program of this name, of this kind.
pub fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    program.try_into().with_context(|| format!("program {name}"))
}
