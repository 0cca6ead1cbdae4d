//! The loop of a trial: one thread, two ports, receiving first.
//!
//! What is due is sent in bursts of at most [`BURST`]; a burst follows only when the driver has taken the one before,
//! so a trial as fast as possible is paced by the transmit ring. Every turn looks at both receive rings before it
//! sends, and time stamps are those of the burst they came with.

use hdrhistogram::Histogram;

use super::port::{BURST, Port};
use super::schedule::Lane;
use super::sink::{Sink, Taken};
use super::traffic::Traffic;
use crate::media::clock::now_ns;
use crate::media::meter::{latency_histogram, record_latency};

/// From the decision to start to the first packet.
const LEAD_NS: u64 = 200_000;
/// How much longer than planned a trial may send what is due: a sender that was held up sends late but not less, and
/// one that cannot keep up ends.
pub(super) const GRACE_NS: u64 = 500_000_000;
/// After sending, a trial ends when nothing has arrived for so long,
pub(super) const QUIET_NS: u64 = 200_000_000;
/// or after so long in any case.
pub(super) const DRAIN_NS_MAX: u64 = 3_000_000_000;

/// How the sending went.
pub struct Run {
    /// When the first packet was due.
    pub start_ns: u64,
    /// When the last one was sent.
    pub sent_until_ns: u64,
    /// Packets whose time came.
    pub intended: u64,
    /// Packets the transmit rings took.
    pub sent: u64,
    /// How much later than intended packets were sent.
    pub delay_ns: Histogram<u64>,
    /// When packets were sent whose time is "as soon as possible".
    pub(super) sent_at_ns: Vec<u64>,
}

impl Run {
    /// When a packet should have been sent; `None` for one that was not.
    pub fn intended_ns(&self, traffic: &Traffic<'_>, sequence: u64) -> Option<u64> {
        match traffic.schedule().at_ns(sequence) {
            Some(at_ns) => (sequence < self.intended).then_some(self.start_ns + at_ns),
            None => self.sent_at_ns.get(sequence as usize).copied(),
        }
    }

    /// Sends all there is to send, and receives until nothing comes any more.
    pub fn perform(
        traffic: &mut Traffic<'_>,
        clients: &mut Port,
        server: &mut Port,
        sink: &mut Sink,
    ) -> Self {
        let schedule = traffic.schedule();
        let is_paced = schedule.at_ns(0).is_some();
        let unpaced_count = if is_paced { 0 } else { schedule.count() as usize };
        let start_ns = now_ns() + LEAD_NS;
        let mut run = Self {
            start_ns,
            sent_until_ns: start_ns,
            intended: 0,
            sent: 0,
            delay_ns: latency_histogram(),
            sent_at_ns: Vec::with_capacity(unpaced_count),
        };
        let deadline_ns = start_ns + schedule.duration_ns() + if is_paced { GRACE_NS } else { 0 };
        let mut next = 0;
        loop {
            let mut is_idle = receive(clients, server, sink) == 0;
            let now = now_ns();
            if next == schedule.count() || now > deadline_ns {
                break;
            }
            let due = if now < start_ns { 0 } else { schedule.due(now - start_ns) };
            if next < due && clients.is_ready() && server.is_ready() {
                let end = due.min(next + BURST as u64);
                run.burst(traffic, next..end, now, clients, server);
                next = end;
                is_idle = false;
            }
            if is_idle {
                clients.maintain();
                server.maintain();
            }
        }
        run.intended = if is_paced { schedule.count() } else { next };
        run.drain(clients, server, sink);
        run
    }

    fn burst(
        &mut self,
        traffic: &mut Traffic<'_>,
        sequences: std::ops::Range<u64>,
        now: u64,
        clients: &mut Port,
        server: &mut Port,
    ) {
        let schedule = traffic.schedule();
        let mut used = [false; 2];
        for sequence in sequences {
            let planned = schedule.packet(sequence);
            let port = match planned.lane {
                Lane::Up => &mut *clients,
                Lane::Down => &mut *server,
            };
            used[usize::from(planned.lane == Lane::Down)] = true;
            let len = traffic.frame_len(planned);
            port.push(planned.client, len, |frame| traffic.write(sequence, planned, frame));
            match schedule.at_ns(sequence) {
                Some(at_ns) => record_latency(&mut self.delay_ns, now.saturating_sub(self.start_ns + at_ns)),
                None => self.sent_at_ns.push(now),
            }
        }
        if used[0] {
            self.sent += clients.flush() as u64;
        }
        if used[1] {
            self.sent += server.flush() as u64;
        }
        self.sent_until_ns = now;
    }

    fn drain(&mut self, clients: &mut Port, server: &mut Port, sink: &mut Sink) {
        let start_ns = now_ns();
        let mut last_ns = start_ns;
        loop {
            let now = now_ns();
            if receive(clients, server, sink) > 0 {
                last_ns = now;
            } else {
                clients.maintain();
                server.maintain();
            }
            let is_complete = sink.len() as u64 >= self.sent;
            if is_complete || now > last_ns + QUIET_NS || now > start_ns + DRAIN_NS_MAX {
                return;
            }
        }
    }
}

/// One burst from each side.
#[inline]
fn receive(clients: &mut Port, server: &mut Port, sink: &mut Sink) -> usize {
    server.receive(|at_ns, frame| sink.take_plain(Taken::whole(at_ns, frame)))
        + clients.receive(|at_ns, frame| sink.take_at_clients(Taken::whole(at_ns, frame)))
}
