//! Responses and their chunks: a request is answered, bytes flow, a chunk arrives whole, a response ends.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use potluck_common::ContentId;
use potluck_common::chunk::ChunkIndex;
use potluck_peer::scheduler::{Failure, Request, Verdict};

use crate::events::Event;
use crate::links::FlowId;
use crate::peers::{Fault, Fetch, Role, Word, peer_of};
use crate::sim::Sim;

/// What a peer without a free slot asks to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Seconds that a request waits for a slot, where it may.
const MAX_WAIT: f64 = 2.0;

impl Sim {
    /// A request has been to its owner and back: the first bytes come, or a refusal.
    pub(crate) fn answer(&mut self, peer: usize, request: Request) {
        let now = self.now();
        let from = peer_of(request.owner);
        let owner = &self.peers[from];
        let holds_all = request.run.indices().all(|chunk| owner.have.contains(chunk));
        let is_free = self.links.uploads(from).len() < owner.spec.slots;
        let is_present = owner.is_present;
        let is_waiting = !is_free && owner.waiting.len() < self.habits.n_waiting;
        let Some(scheduler) = &mut self.peers[peer].scheduler else { return };
        if scheduler.owner_of(request.id).is_none() {
            return; // cancelled meanwhile
        }
        let refusal = match (is_present, holds_all, is_free || is_waiting) {
            (true, true, true) => None,
            (true, true, false) => Some(Failure::Choked { retry_after: RETRY_AFTER }),
            (true, false, _) => Some(Failure::NotHeld),
            (false, ..) => Some(Failure::Unreachable),
        };
        if let Some(refusal) = refusal {
            scheduler.on_failed(request.id, refusal, now);
            self.look(peer);
            return;
        }
        let is_fresh = request.is_fresh && self.habits.refuses_twice;
        let to = IpAddr::V6(Ipv6Addr::from_bits(peer as u128));
        if let Err(elsewhere) = self.peers[from].handed.hand(ContentId::of(b""), request.run, to, is_fresh, now) {
            let Some(scheduler) = &mut self.peers[peer].scheduler else { return };
            elsewhere.into_iter().for_each(|chunk| scheduler.on_coming(chunk));
            scheduler.on_failed(request.id, Failure::Coming, now);
            self.look(peer);
            return;
        }
        if is_waiting {
            let visit = self.peers[peer].n_visits;
            self.peers[from].waiting.push_back((peer, visit, request));
            self.events.push(self.time + MAX_WAIT, Event::Refuse(peer, visit, request));
        } else {
            self.begin(from, peer, request);
        }
        for chunk in request.run.indices() {
            self.tell(from, Word::Coming(chunk));
        }
    }

    /// The bytes of a response begin to flow.
    fn begin(&mut self, from: usize, to: usize, request: Request) {
        let now = self.now();
        let Some(scheduler) = &mut self.peers[to].scheduler else { return };
        let mut n_told = 0;
        if self.links.up(from) > 0.0 {
            n_told = 1;
            scheduler.on_bytes(request.id, n_told, now);
        }
        let start = self.geometry.bytes_of_run(request.run).start;
        let marks = request.run.indices().map(|chunk| (self.geometry.bytes_of(chunk).end - start) as f64).collect();
        let flow = self.links.add(from, to, marks, self.time);
        self.peers[to].fetches.push(Fetch { flow, from, request, n_told, n_chunks: 0 });
    }

    /// Free slots go to those who wait, in their order.
    fn fill_slots(&mut self, from: usize) {
        while self.links.uploads(from).len() < self.peers[from].spec.slots {
            let Some((to, visit, request)) = self.peers[from].waiting.pop_front() else { return };
            let still_wants = |it: &Sim| it.peers[to].scheduler.as_ref()?.owner_of(request.id);
            if self.is_visit(to, visit) && still_wants(self).is_some() {
                self.begin(from, to, request);
            }
        }
    }

    /// Nobody waits longer than that.
    pub(crate) fn refuse_waiting(&mut self, peer: usize, request: Request) {
        let waiting = &mut self.peers[peer_of(request.owner)].waiting;
        let Some(at) = waiting.iter().position(|(to, _, other)| *to == peer && other.id == request.id) else { return };
        waiting.remove(at);
        let now = self.now();
        if let Some(scheduler) = &mut self.peers[peer].scheduler {
            scheduler.on_failed(request.id, Failure::Choked { retry_after: RETRY_AFTER }, now);
            self.look(peer);
        }
    }

    /// A flow has reached a mark, or would have if nothing had slowed it.
    pub(crate) fn move_flow(&mut self, id: FlowId) {
        let Some(flow) = self.links.on_due(id, self.time) else { return };
        let (to, n_sent) = (flow.to, flow.n_sent);
        let mut n_whole = 0;
        while flow.marks.front().is_some_and(|mark| *mark <= n_sent + 0.5) {
            flow.marks.pop_front();
            n_whole += 1;
        }
        let at = self.peers[to].fetches.iter().position(|fetch| fetch.flow == id);
        let at = at.expect("a flow belongs to a fetch of its receiver");
        self.tell_bytes(to, at);
        for _ in 0..n_whole {
            let fetch = &mut self.peers[to].fetches[at];
            let chunk = fetch.request.run.indices().nth(fetch.n_chunks as usize).expect("one mark for each chunk");
            fetch.n_chunks += 1;
            let (from, request) = (fetch.from, fetch.request);
            if self.deliver(to, from, request, chunk) {
                if self.peers[to].scheduler.is_some() {
                    let fetch = self.peers[to].fetches.remove(at);
                    self.drop_flow(fetch.flow, fetch.from, to);
                }
                break;
            }
        }
        if let Some(at) = self.links.next_due(id, self.time) {
            self.events.push(at, Event::Flow(id));
        }
        if n_whole > 0 {
            self.look(to);
        }
    }

    /// Tells a scheduler of the bytes of one of its responses.
    pub(crate) fn tell_bytes(&mut self, peer: usize, fetch: usize) {
        let now = self.now();
        let it = &mut self.peers[peer];
        let fetch = &mut it.fetches[fetch];
        let Some(flow) = self.links.settle(fetch.flow, self.time) else { return };
        let n_bytes = (flow.n_sent + 0.5) as u64;
        if let Some(scheduler) = &mut it.scheduler
            && n_bytes > fetch.n_told
        {
            scheduler.on_bytes(fetch.request.id, n_bytes - fetch.n_told, now);
            fetch.n_told = n_bytes;
        }
    }

    /// A chunk has arrived whole. Whether its response is over.
    fn deliver(&mut self, to: usize, from: usize, request: Request, chunk: ChunkIndex) -> bool {
        let now = self.now();
        let fault = self.peers[from].spec.fault;
        let Some(scheduler) = &mut self.peers[to].scheduler else { return true };
        if let Fault::Bad { corrupt, disconnect } = fault {
            if self.rng.f64() < corrupt {
                scheduler.on_failed(request.id, Failure::Corrupt { chunk }, now);
                return true;
            }
            if self.rng.f64() < disconnect {
                scheduler.on_failed(request.id, Failure::Unreachable, now);
                return true;
            }
        }
        let verdict = scheduler.on_chunk(request.id, chunk, now);
        let is_end = verdict == Verdict::Continue && chunk == request.run.last();
        if is_end {
            scheduler.on_end(request.id, now);
        }
        for word in [self.time.to_bits(), to as u64, from as u64, u64::from(chunk.get())] {
            self.trace = (self.trace ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        if self.peers[from].spec.role == Role::Seeder {
            self.copies[chunk.as_usize()] += 1;
        }
        self.gain(to, chunk);
        self.perhaps_leave(from);
        is_end || verdict == Verdict::Stop || self.peers[to].scheduler.is_none()
    }

    fn gain(&mut self, peer: usize, chunk: ChunkIndex) {
        let it = &mut self.peers[peer];
        if !it.have.insert(chunk) {
            return;
        }
        if it.spec.stays() {
            self.safe.insert(chunk);
        }
        let (is_complete, is_announced) = (it.have.is_complete(), it.is_announced);
        if is_complete {
            self.complete(peer);
            return;
        }
        if !is_announced {
            self.announce(peer);
        }
        self.tell(peer, Word::Have(peer, chunk));
        self.perhaps_leave(peer);
    }

    /// Ends a flow and counts what it brought.
    pub(crate) fn drop_flow(&mut self, id: FlowId, from: usize, to: usize) {
        let Some(flow) = self.links.settle(id, self.time) else { return };
        let (n_sent, silence) = (flow.n_sent, self.time - flow.moved_at);
        self.longest_silence = self.longest_silence.max(silence);
        self.peers[from].n_sent += n_sent;
        self.peers[to].n_received += n_sent;
        self.links.remove(id);
        self.fill_slots(from);
    }

    /// Everything that a peer sends breaks off.
    pub(crate) fn break_uploads(&mut self, from: usize) {
        for id in self.links.uploads(from).to_vec() {
            let Some(to) = self.links.get(id).map(|flow| flow.to) else { continue };
            let fetches = &mut self.peers[to].fetches;
            let at = fetches.iter().position(|fetch| fetch.flow == id).expect("a flow belongs to a fetch");
            let request = fetches.remove(at).request.id;
            self.drop_flow(id, from, to);
            self.say(to, self.round_trip(from, to) / 2.0, Word::Failed(request, Failure::Unreachable));
        }
    }
}
