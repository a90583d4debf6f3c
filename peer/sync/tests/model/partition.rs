//! A network that is cut in two, and heals.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::History;
use crate::names::{content, copy, path};
use crate::users::Users;
use crate::world::World;

/// The tracker's default.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Partitions with chance edits.
const SEEDS: u64 = 150;
const N_EDITS: usize = 20;

/// Every second peer is on the other side.
fn cut(world: &mut World) {
    for (n, peer) in world.peers.iter_mut().enumerate() {
        peer.part = u8::from(n % 2 == 1);
    }
}

fn heal(world: &mut World) {
    world.peers.iter_mut().for_each(|peer| peer.part = 0);
    world.tracker.part = 0;
}

/// How many heartbeats it takes until everybody has heard of everything, and done what follows from it.
fn heartbeats(users: &mut Users) -> Result<usize, String> {
    for n in 0..=10 {
        if users.world.is_quiet() {
            return Ok(n);
        }
        users.world.advance(HEARTBEAT);
        users.world.beat();
        for n in 0..users.world.peers.len() {
            users.world.settle(n);
        }
        users.take_notes();
    }
    Err(format!("not yet{}", users.world.differences()))
}

/// F27: on both sides of a partition the same file is edited, a file is deleted that the other side edits, one is renamed, a name is
/// given twice. After healing both versions of each exist (I2), what was deleted and left alone is gone (I4), and all folders are
/// alike (I3) within two heartbeats, wherever the tracker was and if there is none.
#[test]
fn f27_both_versions_are_there_two_heartbeats_after_healing() {
    for tracker in [Some(0), Some(1), None] {
        let world = if tracker.is_some() { World::new(4, 1) } else { World::without_tracker(4, 1) };
        let mut users = Users::of(world);
        for name in ["both.txt", "deleted", "edited", "moved", "d/left"] {
            users.write(0, &path(name), content(name), 0, false);
        }
        users.rest().unwrap();
        cut(&mut users.world);
        users.world.tracker.part = tracker.unwrap_or(0);
        users.write(0, &path("both.txt"), content("ours"), 1_000_000_000, false);
        users.write(1, &path("both.txt"), content("theirs"), 2_000_000_000, false);
        users.delete(0, &path("edited"));
        users.write(1, &path("edited"), content("edited again"), 0, false);
        users.rename(2, &path("moved"), &path("d/moved"));
        users.delete(3, &path("deleted"));
        users.write(0, &path("new"), content("our new"), 2_000_000_000, false);
        users.write(3, &path("new"), content("their new"), 1_000_000_000, false);
        // Long enough for every lease to end, and each side to come to rest.
        for _ in 0..6 {
            users.world.round_of(0..4);
            users.take_notes();
        }
        let look = |users: &Users, n: usize| users.world.peers[n].folder.look();
        assert_eq!(look(&users, 0), look(&users, 2));
        assert_eq!(look(&users, 1), look(&users, 3));
        assert_ne!(look(&users, 0), look(&users, 1));
        heal(&mut users.world);
        let n = heartbeats(&mut users).unwrap();
        assert!(n <= 2, "tracker: {tracker:?}, {n} heartbeats");
        users.oracle.judge(&users.world.peers[0].folder).unwrap();
        let wanted = BTreeMap::from([
            ("both.txt".to_owned(), content("theirs")),
            (copy("both.txt", "ours").to_string(), content("ours")),
            ("edited".to_owned(), content("edited again")),
            ("d/left".to_owned(), content("d/left")),
            ("d/moved".to_owned(), content("moved")),
            ("new".to_owned(), content("our new")),
            (copy("new", "their new").to_string(), content("their new")),
        ]);
        assert_eq!(users.world.peers[3].folder.contents(), wanted);
    }
}

/// F27, with chance edits on both sides and a network that loses, doubles and damages: two heartbeats after healing all folders
/// are alike, and hold what the oracle says.
#[test]
fn f27_chance_edits_on_both_sides() {
    for seed in 0..SEEDS {
        let mut history = History::new(seed);
        history.perturb();
        history.users.rest().unwrap();
        cut(&mut history.users.world);
        history.users.world.tracker.part = u8::from(seed % 2 == 0);
        for _ in 0..N_EDITS {
            history.edit_somewhere();
            history.live(40);
        }
        let users = &mut history.users;
        // Each side comes to rest: what waits since before may wait for longer.
        for _ in 0..2 {
            users.world.round_of(0..users.world.peers.len());
            users.take_notes();
        }
        heal(&mut users.world);
        let ended = heartbeats(users).and_then(|n| {
            assert!(n <= 2, "seed {seed}: {n} heartbeats");
            users.oracle.judge(&users.world.peers[0].folder)
        });
        ended.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
