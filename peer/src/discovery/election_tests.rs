//! A LAN of elections under a virtual clock: questions and answers are lost, hosts die, the network is cut and heals.

use super::*;

const TICK: Duration = Duration::from_millis(20);
const HEARTBEAT: Duration = Duration::from_secs(2);

/// A tracker that runs somewhere.
#[derive(Debug, Clone)]
struct Running {
    seen: Seen,
    /// The peer that hosts it, or nobody.
    host: Option<usize>,
    side: u8,
    retiring: bool,
}

struct Node {
    election: Election,
    alive: bool,
    side: u8,
    joined: Vec<(Seen, Instant)>,
}

struct Lan {
    now: Instant,
    began: Instant,
    nodes: Vec<Node>,
    trackers: Vec<Running>,
    /// What is heard later: when, by whom, what.
    air: Vec<(Instant, usize, Seen)>,
    loss: f64,
    rng: fastrand::Rng,
    n_asked: usize,
}

impl Lan {
    fn new(n: usize, loss: f64, seed: u64) -> Self {
        let now = Instant::now();
        let mut lan = Self {
            now,
            began: now,
            nodes: Vec::new(),
            trackers: Vec::new(),
            air: Vec::new(),
            loss,
            rng: fastrand::Rng::with_seed(seed),
            n_asked: 0,
        };
        (0..n).for_each(|_| lan.start(true));
        lan
    }

    fn start(&mut self, may_host: bool) {
        let election = Election::new(Timing::default(), may_host, self.rng.u64(..), self.now);
        self.nodes.push(Node { election, alive: true, side: 0, joined: Vec::new() });
    }

    fn seen(&mut self, hosted: bool) -> Seen {
        let id = self.rng.u64(..);
        Seen { id: TrackerId(id), base: format!("http://{id}"), hosted, on_loopback: false }
    }

    /// Somebody starts a tracker.
    fn start_tracker(&mut self, side: u8) -> TrackerId {
        let seen = self.seen(false);
        let id = seen.id;
        self.trackers.push(Running { seen, host: None, side, retiring: false });
        id
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.trackers.retain(|tracker| tracker.host != Some(node));
    }

    /// The tracker at an address, if this node can talk to it.
    fn reach(&self, node: usize, base: &str) -> Option<&Running> {
        self.trackers.iter().find(|tracker| tracker.seen.base == base && tracker.side == self.nodes[node].side)
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            let now = self.now;
            let (due, later): (Vec<_>, _) = std::mem::take(&mut self.air).into_iter().partition(|(at, ..)| *at <= now);
            self.air = later;
            for (_, node, seen) in due {
                // It is asked what it is before it counts.
                if self.reach(node, &seen.base).is_some_and(|tracker| !tracker.retiring) {
                    self.nodes[node].election.on_seen(seen, now);
                }
            }
            for node in 0..self.nodes.len() {
                if self.nodes[node].alive {
                    self.beat(node);
                    self.decide(node);
                }
            }
        }
    }

    fn beat(&mut self, node: usize) {
        let now = self.now;
        for at in 0..self.nodes[node].joined.len() {
            let (seen, due) = self.nodes[node].joined[at].clone();
            if due <= now {
                self.nodes[node].joined[at].1 = now + HEARTBEAT;
                // A restarted tracker at the same address answers as well.
                match self.reach(node, &seen.base).map(|tracker| tracker.retiring) {
                    Some(retiring) => self.nodes[node].election.on_answered(seen.id, retiring),
                    None => self.nodes[node].election.on_silent(seen.id, now),
                }
            }
        }
    }

    fn decide(&mut self, node: usize) {
        let now = self.now;
        for n in 0.. {
            assert!(n < 100, "decisions without end");
            let Some(decision) = self.nodes[node].election.next_decision(now) else { break };
            match decision {
                Decision::Ask => {
                    self.n_asked += 1;
                    for tracker in &self.trackers {
                        if !tracker.retiring && tracker.side == self.nodes[node].side && self.rng.f64() >= self.loss {
                            let at = now + Duration::from_millis(self.rng.u64(1..150));
                            self.air.push((at, node, tracker.seen.clone()));
                        }
                    }
                }
                Decision::NobodyThere => {}
                Decision::Host => {
                    let seen = self.seen(true);
                    let side = self.nodes[node].side;
                    self.trackers.push(Running { seen: seen.clone(), host: Some(node), side, retiring: false });
                    self.nodes[node].election.on_hosting(seen, now);
                }
                Decision::Retire => {
                    self.trackers.iter_mut().filter(|t| t.host == Some(node)).for_each(|t| t.retiring = true);
                }
                Decision::End => self.trackers.retain(|tracker| tracker.host != Some(node)),
                Decision::Join(seen) => {
                    let joined = &mut self.nodes[node].joined;
                    assert!(joined.iter().all(|(other, _)| other.base != seen.base), "joined twice");
                    joined.push((seen, now + TICK));
                }
                Decision::Leave(base) => {
                    let joined = &mut self.nodes[node].joined;
                    let before = joined.len();
                    joined.retain(|(seen, _)| seen.base != base);
                    assert_eq!(joined.len() + 1, before, "left what was not joined");
                }
            }
        }
        // Nothing is due that was not done: the driver would spin.
        assert!(self.nodes[node].election.next_deadline() > now, "a deadline that nothing comes of");
    }

    fn alive(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.alive)
    }

    /// One tracker on each side, and everybody with it alone.
    fn assert_settled(&self, sides: &[u8], what: &str) {
        for side in sides {
            let trackers: Vec<_> = self.trackers.iter().filter(|tracker| tracker.side == *side).collect();
            assert_eq!(trackers.len(), 1, "{what}, side {side}: {trackers:?}");
            for node in self.alive().filter(|node| node.side == *side) {
                let joined: Vec<_> = node.joined.iter().map(|(seen, _)| seen.id).collect();
                assert_eq!(joined, [trackers[0].seen.id], "{what}, side {side}");
            }
        }
    }

    fn cut(&mut self) {
        for (node, state) in self.nodes.iter_mut().enumerate() {
            state.side = u8::from(node % 2 == 1);
        }
        self.place();
    }

    fn heal(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.side = 0);
        self.place();
    }

    fn place(&mut self) {
        for tracker in &mut self.trackers {
            tracker.side = tracker.host.map_or(0, |host| self.nodes[host].side);
        }
    }
}

fn seeds(n: u64) -> impl Iterator<Item = u64> {
    (0..n).inspect(|seed| println!("seed {seed}"))
}

#[test]
fn started_at_once_they_end_with_one_tracker() {
    for seed in seeds(60) {
        // Many take long to simulate, so of them there are fewer.
        let sizes = if seed < 6 { &[1, 2, 3, 8, 32][..] } else { &[1, 2, 3, 8] };
        for &n in sizes {
            let mut lan = Lan::new(n, 0.3, seed);
            // Of 32 at once many host before they hear of each other, and retire one after the other.
            lan.run(Duration::from_secs(if n < 32 { 40 } else { 60 }));
            lan.assert_settled(&[0], &format!("seed {seed}, {n} nodes"));
        }
    }
}

#[test]
fn one_after_another_they_join_the_first_at_once() {
    let mut lan = Lan::new(1, 0.0, 7);
    lan.run(Duration::from_secs(2));
    for _ in 0..5 {
        lan.start(true);
        lan.run(Duration::from_millis(300));
        lan.assert_settled(&[0], "late one");
    }
}

#[test]
fn a_host_dies_and_another_one_takes_its_place() {
    for seed in seeds(40) {
        let mut lan = Lan::new(6, 0.2, seed);
        lan.run(Duration::from_secs(20));
        for _ in 0..3 {
            let host = lan.trackers[0].host.unwrap();
            lan.kill(host);
            // A heartbeat, a look, a back-off: from then on there is one.
            lan.run(Duration::from_secs(5));
            assert!(!lan.trackers.is_empty(), "seed {seed}: no tracker after 5 s");
            lan.run(Duration::from_secs(25));
            lan.assert_settled(&[0], &format!("seed {seed}"));
        }
    }
}

#[test]
fn a_cut_and_healed_network_ends_with_one_tracker() {
    for seed in seeds(40) {
        let mut lan = Lan::new(8, 0.2, seed);
        lan.run(Duration::from_secs(20));
        for _ in 0..2 {
            lan.cut();
            lan.run(Duration::from_secs(30));
            lan.assert_settled(&[0, 1], &format!("seed {seed}, cut"));
            lan.heal();
            lan.run(Duration::from_secs(40));
            lan.assert_settled(&[0], &format!("seed {seed}, healed"));
        }
    }
}

#[test]
fn a_started_tracker_takes_over_and_is_replaced_when_it_dies() {
    for seed in seeds(30) {
        let mut lan = Lan::new(5, 0.2, seed);
        lan.run(Duration::from_secs(20));
        let started = lan.start_tracker(0);
        lan.run(Duration::from_secs(30));
        lan.assert_settled(&[0], &format!("seed {seed}"));
        assert_eq!(lan.trackers[0].seen.id, started);
        lan.trackers.clear();
        lan.run(Duration::from_secs(30));
        lan.assert_settled(&[0], &format!("seed {seed}, without it"));
    }
}

/// Trackers that people started do not know of each other, so everybody is with all of them.
#[test]
fn several_started_trackers_are_all_joined() {
    let mut lan = Lan::new(0, 0.3, 3);
    let mut started: Vec<_> = (0..3).map(|_| lan.start_tracker(0)).collect();
    (0..4).for_each(|_| lan.start(true));
    lan.run(Duration::from_secs(150));
    started.sort();
    for node in lan.alive() {
        let mut joined: Vec<_> = node.joined.iter().map(|(seen, _)| seen.id).collect();
        joined.sort();
        assert_eq!(joined, started);
    }
}

/// A verb of its own never hosts, and hears soon that nobody is there.
#[test]
fn who_may_not_host_does_not() {
    let mut election = Election::new(Timing::default(), false, 1, Instant::now());
    let (mut now, mut told) = (Instant::now(), None);
    let began = now;
    while now < began + Duration::from_secs(600) {
        while let Some(decision) = election.next_decision(now) {
            match decision {
                Decision::Ask => {}
                Decision::NobodyThere if told.is_none() => told = Some(now - began),
                other => panic!("{other:?}"),
            }
        }
        now = election.next_deadline().max(now + Duration::from_millis(1));
    }
    assert!(told.is_some_and(|told| told < Duration::from_secs(2)), "{told:?}");
}

/// A quiet LAN stays quiet: one host that looks, and hardly a word of the others.
#[test]
fn few_questions_once_settled() {
    let mut lan = Lan::new(20, 0.0, 5);
    lan.run(Duration::from_secs(30));
    let before = lan.n_asked;
    lan.run(Duration::from_secs(600));
    let a_minute = (lan.n_asked - before) / 10;
    assert!(a_minute <= 20 + 27, "{a_minute} questions a minute");
    assert!(lan.began < lan.now);
}

/// A tracker that is heard and takes no announce must not keep us from having one.
#[test]
fn a_tracker_that_takes_nothing_is_shunned() {
    let began = Instant::now();
    let mut election = Election::new(Timing::default(), true, 1, began);
    let bad = Seen { id: TrackerId(0), base: "http://bad".into(), hosted: false, on_loopback: false };
    let (mut now, mut hosted, mut n_joined) = (began, false, 0);
    while now < began + Duration::from_secs(30) {
        while let Some(decision) = election.next_decision(now) {
            match decision {
                Decision::Ask => election.on_seen(bad.clone(), now),
                Decision::Join(seen) if seen.id == bad.id => {
                    n_joined += 1;
                    election.on_silent(bad.id, now);
                }
                Decision::Host => {
                    hosted = true;
                    let own = Seen { id: TrackerId(9), base: "http://own".into(), hosted: true, on_loopback: false };
                    election.on_hosting(own, now);
                }
                Decision::Join(own) => election.on_answered(own.id, false),
                Decision::Retire => panic!("for a tracker that takes nothing"),
                _ => {}
            }
        }
        now = election.next_deadline().max(now + Duration::from_millis(1));
    }
    assert!(hosted, "never");
    assert!(n_joined < 12, "{n_joined}");
}

/// H15: invented trackers are not kept, and do not push out the one in use.
#[test]
fn invented_trackers() {
    let now = Instant::now();
    let mut election = Election::new(Timing::default(), false, 1, now);
    let seen = |id: u64| Seen { id: TrackerId(id), base: format!("http://{id}"), hosted: true, on_loopback: false };
    election.on_seen(seen(1 << 40), now);
    assert_eq!(election.next_decision(now), Some(Decision::Join(seen(1 << 40))));
    election.on_answered(TrackerId(1 << 40), false);
    for id in (1 << 20..(1 << 20) + 100_000).rev() {
        election.on_seen(seen(id), now);
    }
    assert!(election.known.len() <= MAX_KNOWN);
    assert!(election.known[&TrackerId(1 << 40)].joined);
}

/// The same tracker by a better address: others are handed out the address we come from.
#[test]
fn an_address_of_the_network_is_better_than_loopback() {
    let now = Instant::now();
    let mut election = Election::new(Timing::default(), false, 1, now);
    let near = Seen { id: TrackerId(1), base: "http://127.0.0.1:1".into(), hosted: true, on_loopback: true };
    let far = Seen { base: "http://10.0.0.1:1".into(), on_loopback: false, ..near.clone() };
    election.on_seen(near.clone(), now);
    assert_eq!(election.next_decision(now), Some(Decision::Join(near.clone())));
    election.on_seen(far.clone(), now);
    assert_eq!(election.next_decision(now), Some(Decision::Leave(near.base.clone())));
    assert_eq!(election.next_decision(now), Some(Decision::Join(far)));
    election.on_seen(near, now);
    assert!(!matches!(election.next_decision(now), Some(Decision::Join(_) | Decision::Leave(_))));
}

/// On one machine the next host gets the very address of the one that ended. Leaving that one late once left the new one:
/// its host announced itself nowhere, for as long as it ran.
#[test]
fn the_next_host_at_the_same_address_is_not_left_with_the_last() {
    let start = Instant::now();
    let seen = |id| Seen { id: TrackerId(id), base: "http://h:7700".into(), hosted: true, on_loopback: false };
    let decisions = |election: &mut Election, now| {
        let mut decisions = Vec::new();
        while let Some(decision) = election.next_decision(now) {
            decisions.push(decision);
        }
        decisions.retain(|decision| !matches!(decision, Decision::Ask | Decision::NobodyThere));
        decisions
    };
    for (last, own) in [(1, 2), (4, 3)] {
        let mut election = Election::new(Timing::default(), true, 1, start);
        election.on_seen(seen(last), start);
        assert_eq!(decisions(&mut election, start), [Decision::Join(seen(last))]);
        election.on_answered(TrackerId(last), false);
        election.on_silent(TrackerId(last), start);
        let mut now = start;
        while !decisions(&mut election, now).contains(&Decision::Host) {
            now = election.next_deadline().max(now + TICK);
        }
        election.on_hosting(seen(own), now);
        let base = seen(own).base;
        assert_eq!(decisions(&mut election, now), [Decision::Leave(base), Decision::Join(seen(own))]);
        election.on_answered(TrackerId(own), false);
        assert_eq!(decisions(&mut election, now), []);
    }
}
