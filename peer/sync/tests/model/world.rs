//! A swarm: machines, their folders and stores, and what [`network`](crate::network) lies between them.
//!
//! The driver's part is played here in small steps, so that anything can happen between two of them: a save is
//! taken and kept, an action is begun, performed and reported, a path is looked at, a message is sent and arrives.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use potluck_common::conflict_name::{Original, is_conflict_name_of, original};
use potluck_common::identity::Identity;
use potluck_common::projection::Registers;
use potluck_common::protocol::{IndexEntry, SyncMode};
use potluck_common::register::Dot;
use potluck_common::{ContentId, Register, SharePath};
use potluck_sync::action::{Action, Outcome, Seen};
use potluck_sync::disk_table::{KeptAt, OnDisk, Row};
use potluck_sync::machine::{Machine, Stored, Unsaved};

use crate::folder::{Careless, Folder, Node};
use crate::network::{Link, Message};
use crate::tracker::Tracker;

/// What is on disk in `.potluck/`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    entries: BTreeMap<SharePath, Register>,
    rows: BTreeMap<SharePath, KeptAt>,
    identity: u32,
    pub(crate) generation: u64,
}

impl Store {
    fn keep(&mut self, unsaved: Unsaved) {
        for IndexEntry { path, register } in unsaved.entries {
            self.entries.insert(path, register);
        }
        for (real, kept) in unsaved.rows {
            match kept {
                Some(kept) => drop(self.rows.insert(real, kept)),
                None => drop(self.rows.remove(&real)),
            }
        }
    }

    fn row(&self, real: &SharePath) -> Option<&Row> {
        self.rows.get(real).and_then(|kept| kept.row.as_ref())
    }

    fn stored(&self) -> Stored {
        let entry =
            |(path, register): (&SharePath, &Register)| IndexEntry { path: path.clone(), register: register.clone() };
        Stored {
            entries: self.entries.iter().map(entry).collect(),
            rows: self.rows.iter().map(|(real, row)| (real.clone(), row.clone())).collect(),
        }
    }
}

/// An action on its way.
#[derive(Debug)]
struct Doing {
    action: Action,
    outcome: Option<Outcome>,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) machine: Machine,
    pub(crate) folder: Folder,
    pub(crate) store: Store,
    pub(crate) backup: Option<(Store, Folder)>,
    pub(crate) part: u8,
    saving: Option<Unsaved>,
    doing: Vec<Doing>,
    scanning: Option<Vec<SharePath>>,
    to_look: Vec<SharePath>,
    /// What the user has changed since the store last knew the folder as it was.
    pub(crate) edited: BTreeSet<SharePath>,
    /// What stood in the folder at the last crash and is not in the store.
    forgotten: BTreeSet<SharePath>,
    pub(crate) identity: Identity,
    pub(crate) link: Link,
    /// Contents that no longer are in the folder and can be had all the same: a world in which the last copy of something is
    /// lost with the memory of its deletion does not come to rest.
    pub(crate) archive: BTreeSet<ContentId>,
}

impl Peer {
    /// Whether its user has lately done something to this path, to one of its copies, or to a folder above. Who edits where a crash
    /// has left half of an action may get a copy more.
    fn has_edited_at(&self, name: &SharePath) -> bool {
        let path = |name: &SharePath| match original(name) {
            Some(Original::Path(origin)) => origin,
            _ => name.clone(),
        };
        let is_above = |edited: &SharePath| format!("{name}/").starts_with(&format!("{edited}/"));
        self.edited.iter().any(|edited| path(edited) == path(name) || is_above(edited))
    }

    /// Whether the store knows the folder as it is.
    fn is_stored(&self) -> bool {
        let known = self.machine.replica();
        known.registers == self.store.entries
            && known.rows.iter().all(|(real, row)| self.store.row(real) == Some(row))
            && self.folder.nodes.keys().all(|real| self.has_stored(real))
            && self.store.rows.keys().all(|real| self.folder.nodes.contains_key(real))
    }

    fn has_stored(&self, real: &SharePath) -> bool {
        match (self.store.row(real), self.folder.nodes.get(real)) {
            (Some(row), Some(Node::File(file))) => row.has_content(&file.content_id),
            (Some(row), Some(Node::Folder)) => row.on_disk == OnDisk::Folder,
            _ => false,
        }
    }
}

/// What a peer has written under its own name.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) n: usize,
    pub(crate) name: SharePath,
    pub(crate) content: Option<ContentId>,
    /// Whether its user has lately done something there.
    pub(crate) is_edited: bool,
}

/// See the module's text.
pub(crate) struct World {
    pub(crate) peers: Vec<Peer>,
    pub(crate) now: Instant,
    pub(crate) rng: fastrand::Rng,
    pub(crate) careless: Careless,
    pub(crate) is_told: bool,
    watched: Option<SharePath>,
    told: RefCell<BTreeMap<usize, String>>,
    pub(crate) tracker: Tracker,
    pub(crate) wire: Vec<Message>,
    pub(crate) n_messages: u64,
    n_identities: u32,
    n_starts: u64,
    /// Peers that have taken another identity since this was last asked.
    pub(crate) renamed: Vec<usize>,
    /// Peers whose last save has just been kept.
    pub(crate) saved: Vec<usize>,
    /// What peers have written, each under its own name, since this was last asked.
    pub(crate) written: Vec<Written>,
    /// Of these what was told before.
    known_writes: BTreeSet<(SharePath, Dot)>,
}

fn identity(n: u32) -> Identity {
    let mut secret = [7; 32];
    secret[..4].copy_from_slice(&n.to_be_bytes());
    Identity::from_secret(&secret)
}

impl World {
    pub(crate) fn new(n_peers: usize, seed: u64) -> Self {
        Self::with(Tracker::new(), n_peers, seed)
    }

    /// One whose peers have only each other.
    pub(crate) fn without_tracker(n_peers: usize, seed: u64) -> Self {
        Self::with(Tracker::absent(), n_peers, seed)
    }

    fn with(tracker: Tracker, n_peers: usize, seed: u64) -> Self {
        let mut world = Self {
            peers: Vec::new(),
            now: tracker.now(),
            rng: fastrand::Rng::with_seed(seed),
            careless: Careless::default(),
            is_told: false,
            watched: std::env::var("POTLUCK_WATCH").ok().map(|path| path.parse().unwrap()),
            told: RefCell::default(),
            tracker,
            wire: Vec::new(),
            n_messages: 0,
            n_identities: 0,
            n_starts: 1,
            renamed: Vec::new(),
            saved: Vec::new(),
            written: Vec::new(),
            known_writes: BTreeSet::new(),
        };
        for _ in 0..n_peers {
            world.n_identities += 1;
            let store = Store { identity: world.n_identities, generation: 1, ..Store::default() };
            let identity = identity(store.identity);
            let machine = Machine::new(identity.peer_id(), 1, SyncMode::Both, Stored::default());
            world.peers.push(Peer {
                machine,
                identity,
                link: Link::new(world.rng.u64(..)),
                folder: Folder::default(),
                store,
                backup: None,
                part: 0,
                saving: None,
                doing: Vec::new(),
                scanning: None,
                to_look: Vec::new(),
                edited: BTreeSet::new(),
                forgotten: BTreeSet::new(),
                archive: BTreeSet::new(),
            });
        }
        world
    }

    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{}", what());
            self.tell_watched();
        }
    }

    /// Tells what has become of the path that `POTLUCK_WATCH` names.
    fn tell_watched(&self) {
        let Some(path) = &self.watched else { return };
        for (n, peer) in self.peers.iter().enumerate() {
            let live = peer.machine.index().register(path).map(Register::live);
            let now =
                format!("{live:?}, row {:?}", peer.machine.table().get(path).map(|row| (&row.copy_of, &row.dots)));
            if self.told.borrow_mut().insert(n, now.clone()).as_ref() != Some(&now) {
                eprintln!("      {n}: {now}");
            }
        }
    }

    /// One step of the driver of one peer, or of the network, by chance.
    pub(crate) fn step(&mut self) {
        let n = self.rng.usize(..self.peers.len());
        match self.rng.u8(..16) {
            0 => {
                let time = Duration::from_millis(self.rng.u64(1..400));
                self.advance(time);
            }
            1 | 2 => self.look_somewhere(n),
            3 | 4 => self.scan_on(n),
            5 | 6 => self.save(n),
            7..=9 => self.begin(n),
            10 | 11 => self.perform(n),
            12 | 13 => self.report(n),
            14 => self.send(n),
            _ => self.deliver(),
        }
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.tracker.advance(time);
    }

    fn look_somewhere(&mut self, n: usize) {
        self.gather_looks(n);
        if self.peers[n].to_look.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.peers[n].to_look.len());
        let real = self.peers[n].to_look.swap_remove(at);
        let is_file = self.peers[n].folder.file(&real).is_some();
        if is_file && self.rng.u8(..5) == 0 {
            self.tell(|| format!("  {n}: {real} is being hashed"));
            self.peers[n].machine.on_seen(&real, Seen::Unsettled, self.now);
            self.peers[n].to_look.push(real);
        } else {
            self.look(n, &real);
        }
    }

    fn gather_looks(&mut self, n: usize) {
        let peer = &mut self.peers[n];
        peer.to_look.append(&mut peer.folder.hints);
        let asked = peer.machine.take_looks();
        peer.to_look.extend(asked);
    }

    fn look(&mut self, n: usize, real: &SharePath) {
        let peer = &mut self.peers[n];
        match peer.folder.seen(real) {
            _ if peer.folder.call_fails() => drop(peer.machine.on_obscured(real, self.now)),
            Some(seen) => peer.machine.on_seen(real, seen, self.now),
            None => peer.machine.on_gone(real, self.now),
        }
        self.tell(|| format!("  {n}: sees {real}: {:?}", self.peers[n].folder.nodes.get(real)));
    }

    fn scan_on(&mut self, n: usize) {
        let mut budget = self.rng.usize(1..8);
        let peer = &mut self.peers[n];
        if peer.scanning.is_none() {
            peer.machine.on_scan_began();
            peer.scanning = Some(peer.folder.nodes.keys().cloned().collect());
        }
        while budget > 0 {
            budget -= 1;
            let Some(real) = self.peers[n].scanning.as_mut().and_then(Vec::pop) else {
                self.peers[n].scanning = None;
                self.peers[n].machine.on_scan_ended(self.now);
                self.tell(|| format!("  {n}: scan ended"));
                return;
            };
            if self.peers[n].folder.file(&real).is_some() && self.rng.u8(..6) == 0 {
                self.peers[n].machine.on_seen(&real, Seen::Unsettled, self.now);
                self.peers[n].to_look.push(real);
            } else if self.peers[n].folder.nodes.contains_key(&real) {
                self.look(n, &real);
            }
        }
    }

    pub(crate) fn save(&mut self, n: usize) {
        let peer = &mut self.peers[n];
        match peer.saving.take() {
            None => {
                peer.saving = peer.machine.take_unsaved();
                let me = peer.machine.me();
                for entry in peer.saving.iter().flat_map(|unsaved| &unsaved.entries) {
                    for version in entry.register.live().iter().filter(|version| version.dot.by == me) {
                        if self.known_writes.insert((entry.path.clone(), version.dot)) {
                            let content = version.value.file().map(|file| file.content_id);
                            let name = entry.path.clone();
                            // Now: when this is kept, what its user has edited may be forgotten.
                            let is_edited = peer.has_edited_at(&name);
                            self.written.push(Written { n, name, content, is_edited });
                        }
                    }
                }
            }
            Some(_) if self.rng.u8(..20) == 0 || peer.folder.call_fails() => peer.machine.on_not_saved(),
            Some(unsaved) => {
                peer.store.keep(unsaved);
                peer.machine.on_saved();
                // Only now does the store know the folder as it is, if nothing is under way.
                if peer.doing.is_empty() && peer.is_stored() {
                    peer.edited.clear();
                    self.saved.push(n);
                }
            }
        }
    }

    fn begin(&mut self, n: usize) {
        if self.peers[n].doing.len() < 4
            && let Some(action) = self.peers[n].machine.next_action(self.now)
        {
            self.tell(|| format!("  {n}: begins {action:?}"));
            self.peers[n].doing.push(Doing { action, outcome: None });
        }
    }

    fn has_content(&self, n: usize, action: &Action) -> bool {
        let Some(id) = action.fetches().and_then(|place| place.value.file()).map(|file| file.content_id) else {
            return true;
        };
        let near = |peer: &&Peer| peer.part == self.peers[n].part;
        self.peers.iter().filter(near).any(|peer| {
            peer.folder.files().any(|(_, file)| file.content_id == id)
                || peer.folder.trash.contains(&id)
                || peer.archive.contains(&id)
        })
    }

    fn perform(&mut self, n: usize) {
        let waiting: Vec<_> =
            (0..self.peers[n].doing.len()).filter(|at| self.peers[n].doing[*at].outcome.is_none()).collect();
        if let Some(at) = self.rng.choice(waiting) {
            self.perform_at(n, at);
        }
    }

    fn perform_at(&mut self, n: usize, at: usize) {
        let has_content = self.has_content(n, &self.peers[n].doing[at].action);
        let careless = self.careless;
        let Peer { doing, folder, .. } = &mut self.peers[n];
        let is_given_up = self.rng.u8(..16) == 0;
        let outcome =
            if is_given_up { Outcome::Dropped } else { folder.perform(&doing[at].action, has_content, careless) };
        doing[at].outcome = Some(outcome);
        self.tell(|| format!("  {n}: performs {:?}: {outcome:?}", self.peers[n].doing[at].action));
    }

    fn report(&mut self, n: usize) {
        let done: Vec<_> =
            (0..self.peers[n].doing.len()).filter(|at| self.peers[n].doing[*at].outcome.is_some()).collect();
        if let Some(at) = self.rng.choice(done) {
            let Doing { action, outcome } = self.peers[n].doing.swap_remove(at);
            // An outcome is told when it is durable, and with it all that came before.
            self.peers[n].folder.sync();
            self.peers[n].machine.on_outcome(&action, outcome.unwrap(), self.now);
        }
    }

    pub(crate) fn take_identity(&mut self, n: usize) {
        self.n_identities += 1;
        self.tell(|| format!("  {n}: takes identity {}", self.n_identities));
        let peer = &mut self.peers[n];
        peer.store.identity = self.n_identities;
        peer.identity = identity(self.n_identities);
        peer.machine.take_identity(peer.identity.peer_id(), peer.store.generation);
        peer.link.leave();
        self.renamed.push(n);
    }

    /// The power fails: what no sync has made durable may be undone, from the last of it on.
    pub(crate) fn cut_power(&mut self, n: usize) {
        let n_kept = self.rng.usize(..=self.peers[n].folder.n_unsynced());
        self.tell(|| format!("  {n}: of {} steps {n_kept} are durable", self.peers[n].folder.n_unsynced()));
        self.peers[n].folder.undo_after(n_kept);
        self.restart(n);
    }

    /// The process dies, and starts again on what the store has kept.
    pub(crate) fn restart(&mut self, n: usize) {
        self.n_starts += 1;
        let peer = &mut self.peers[n];
        // A start makes durable what it finds before it believes it: the process that was killed may not have.
        peer.folder.sync();
        peer.forgotten = peer.folder.nodes.keys().filter(|real| !peer.has_stored(real)).cloned().collect();
        // The clock of a machine goes on whatever is restored in it.
        peer.store.generation = self.n_starts;
        peer.identity = identity(peer.store.identity);
        peer.link = Link::new(self.rng.u64(..));
        peer.machine =
            Machine::new(peer.identity.peer_id(), peer.store.generation, SyncMode::Both, peer.store.stored());
        peer.saving = None;
        peer.doing.clear();
        peer.scanning = None;
        peer.to_look.clear();
        peer.folder.hints.clear();
    }

    /// The state folder is lost.
    pub(crate) fn lose_state(&mut self, n: usize) {
        // That something was deleted here is forgotten, so others may go on asking for it.
        let had = self.peers[n].folder.had.clone();
        self.peers[n].archive.extend(had);
        self.n_identities += 1;
        self.peers[n].store = Store { identity: self.n_identities, ..Store::default() };
        self.restart(n);
    }

    /// Folder and state are as they were once.
    pub(crate) fn restore_backup(&mut self, n: usize) -> bool {
        let Some((store, mut folder)) = self.peers[n].backup.clone() else { return false };
        let had = std::mem::take(&mut self.peers[n].folder.had);
        self.peers[n].archive.extend(had);
        folder.trash.clear();
        self.peers[n].folder = folder;
        self.peers[n].store = store;
        self.restart(n);
        true
    }

    pub(crate) fn back_up(&mut self, n: usize) {
        self.peers[n].backup = Some((self.peers[n].store.clone(), self.peers[n].folder.clone()));
    }

    /// Looks wherever something has changed.
    pub(crate) fn look_around(&mut self, n: usize) {
        self.gather_looks(n);
        for real in std::mem::take(&mut self.peers[n].to_look) {
            self.look(n, &real);
        }
    }

    /// Keeps what is unsaved, and begins what is to be done.
    pub(crate) fn begin_all(&mut self, n: usize) {
        self.save_all(n);
        let n_before = |world: &Self| world.peers[n].doing.len();
        loop {
            let before = n_before(self);
            self.begin(n);
            self.save_all(n);
            if n_before(self) == before {
                return;
            }
        }
    }

    /// Does what was begun.
    pub(crate) fn perform_all(&mut self, n: usize) {
        for at in 0..self.peers[n].doing.len() {
            if self.peers[n].doing[at].outcome.is_none() {
                self.perform_at(n, at);
            }
        }
    }

    /// Does what was begun, and tells of it.
    pub(crate) fn finish_all(&mut self, n: usize) {
        self.perform_all(n);
        while !self.peers[n].doing.is_empty() {
            self.report(n);
        }
        self.save_all(n);
    }

    fn save_all(&mut self, n: usize) {
        loop {
            self.save(n);
            if self.peers[n].saving.is_none() {
                return;
            }
        }
    }

    /// Everything that a peer can do by itself, until nothing is left; then it tells all others all that it knows.
    pub(crate) fn settle(&mut self, n: usize) {
        for _ in 0..1_000 {
            self.gather_looks(n);
            while let Some(real) = self.peers[n].to_look.pop() {
                self.look(n, &real);
            }
            while self.peers[n].saving.is_some() {
                self.save(n);
            }
            self.save(n);
            let is_saving = self.peers[n].saving.is_some();
            self.begin(n);
            for at in 0..self.peers[n].doing.len() {
                if self.peers[n].doing[at].outcome.is_none() {
                    self.perform_at(n, at);
                }
            }
            let is_idle = !is_saving && self.peers[n].doing.is_empty() && self.peers[n].folder.hints.is_empty();
            while !self.peers[n].doing.is_empty() {
                self.report(n);
            }
            if is_idle {
                return;
            }
        }
        panic!("peer {n} does not come to rest");
    }

    /// One round of quiet: every peer scans, does what there is to do, and tells the others.
    pub(crate) fn round(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.part = 0);
        self.round_of(0..self.peers.len());
    }

    /// The same for some of them, each in its part of the network; the others do nothing.
    pub(crate) fn round_of(&mut self, peers: Range<usize>) {
        self.wire.clear();
        for n in peers.clone() {
            self.peers[n].scanning = None;
            self.peers[n].machine.on_scan_began();
            let reals: Vec<_> = self.peers[n].folder.nodes.keys().cloned().collect();
            for real in reals {
                self.look(n, &real);
            }
            self.peers[n].machine.on_scan_ended(self.now);
            self.settle(n);
            self.advance(Duration::from_secs(60));
            self.settle(n);
            self.confirm(n);
        }
        self.exchange(peers);
    }

    /// A person says that what is held has been deleted on purpose.
    pub(crate) fn confirm(&mut self, n: usize) {
        if self.peers[n].machine.held().next().is_some() {
            self.tell(|| format!("  {n}: confirms"));
            self.peers[n].machine.confirm();
            self.settle(n);
        }
    }

    /// Whether all have the same folders and the same index, also the tracker, and nothing to do.
    pub(crate) fn is_quiet(&self) -> bool {
        let first = &self.peers[0];
        let tracked = self.tracker.is_up.then(|| self.tracker.whole_index().entries.items);
        let tracked = tracked.map(|entries| entries.into_iter().map(|entry| (entry.path, entry.register)).collect());
        if tracked.is_some_and(|tracked: BTreeMap<_, _>| tracked != first.machine.replica().registers) {
            return false;
        }
        self.peers.iter().all(|peer| {
            peer.machine.is_at_rest()
                && peer.folder.look() == first.folder.look()
                && peer.machine.replica().registers == first.machine.replica().registers
        })
    }

    /// All that there is, to compare.
    pub(crate) fn differences(&self) -> String {
        let mut text = String::new();
        for (n, peer) in self.peers.iter().enumerate() {
            text += &format!(
                "\npeer {n} = {} start {}, at rest: {}, blocked: {:?}\n",
                peer.identity.peer_id(),
                peer.store.generation,
                peer.machine.is_at_rest(),
                peer.machine.blocked().collect::<Vec<_>>()
            );
            for (real, node) in &peer.folder.nodes {
                text += &format!("  {real}: {node:?}\n");
            }
            for (real, row) in peer.machine.table().iter() {
                text += &format!("  {real} row {:?} {:?}\n", row.copy_of, row.dots);
            }
            for (path, register) in peer.machine.replica().registers {
                text += &format!("  {path} = {:?}, seen {:?}\n", register.live(), register.seen());
            }
        }
        text
    }

    /// Whether a crash made a peer forget what stands at a real path.
    pub(crate) fn has_forgotten(&self, n: usize, real: &SharePath) -> bool {
        self.peers[n].forgotten.contains(real) && !self.peers[n].has_stored(real)
    }

    /// Whether a folder is there only for what lies in it, as far as the peer knows: it stands for no write.
    pub(crate) fn is_implied(&self, n: usize, real: &SharePath) -> bool {
        self.peers[n].machine.table().get(real).is_some_and(|row| row.dots.is_empty())
    }

    /// Whether a version stands under two of its names.
    pub(crate) fn stands_twice(&self, n: usize, real: &SharePath, node: &Node) -> bool {
        let Node::File(file) = node else { return false };
        let is_one_path = |other: &SharePath| is_conflict_name_of(real, other) || is_conflict_name_of(other, real);
        self.peers[n].folder.files().any(|(other, there)| there.content_id == file.content_id && is_one_path(other))
    }

    /// What stands at a real path of a peer.
    pub(crate) fn node(&self, n: usize, real: &SharePath) -> Option<Node> {
        self.peers[n].folder.nodes.get(real).copied()
    }
}
