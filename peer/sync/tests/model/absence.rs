//! A peer that is away for longer than anything is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::names::{content, copy, path};
use crate::users::Users;
use crate::world::World;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const N_DAYS: u32 = 400;
/// The trash of the others is emptied, and they start again, this often.
const RETENTION_DAYS: u32 = 30;
const AWAY: usize = 2;

/// The others come to rest: what they find to be deleted they have told each other, and kept.
fn live_on(users: &mut Users) {
    for _ in 0..4 {
        users.world.round_of(0..AWAY);
        users.take_notes();
    }
}

/// The others live on: they start again now and then, and what is old leaves their trash.
fn days_pass(users: &mut Users, is_tracker_forgetful: bool) {
    for day in 1..=N_DAYS {
        users.world.advance(DAY);
        if day % RETENTION_DAYS == 0 {
            for n in 0..AWAY {
                users.world.peers[n].folder.trash.clear();
                users.world.restart(n);
            }
            if is_tracker_forgetful {
                users.world.tracker.start();
            }
            live_on(users);
        }
    }
}

/// F39: a peer is away for 400 days, while the others delete, rename, edit and replace what it has, empty their trash, start again
/// and again, and their tracker with them, on a disk or without. When it is back, its old files do not spread again (I4): they are in
/// its trash, or have got their new names. What its user did meanwhile is kept, beside what the others did to the same file (I2).
#[test]
fn f39_who_was_away_for_400_days_brings_nothing_back() {
    // How the tracker did: it went on, it lost everything now and then, there was none.
    for tracker in [Some(false), Some(true), None] {
        let world = if tracker.is_some() { World::new(3, 1) } else { World::without_tracker(3, 1) };
        let mut users = Users::of(world);
        for name in ["deleted", "edited", "moved", "again", "d/gone", "both.txt", "mine", "kept"] {
            users.write(0, &path(name), content(name), 0, false);
        }
        users.rest().unwrap();
        users.world.peers[AWAY].part = 1;
        users.delete(0, &path("deleted"));
        users.delete(1, &path("again"));
        users.delete(1, &path("d"));
        users.rename(0, &path("moved"), &path("moved away"));
        users.write(1, &path("edited"), content("edited by the others"), 1_000_000_000, false);
        users.write(1, &path("both.txt"), content("theirs"), 2_000_000_000, false);
        users.delete(0, &path("mine"));
        live_on(&mut users);
        days_pass(&mut users, tracker == Some(true));
        // The same name for something else, long after.
        users.write(0, &path("again"), content("something else"), 0, false);
        live_on(&mut users);
        // Its user worked on without a network.
        users.write(AWAY, &path("both.txt"), content("its own"), 1_000_000_000, false);
        users.write(AWAY, &path("mine"), content("its edit"), 0, false);
        users.world.restart(AWAY);
        users.rest().unwrap();

        let wanted = BTreeMap::from([
            ("again".to_owned(), content("something else")),
            ("both.txt".to_owned(), content("theirs")),
            (copy("both.txt", "its own").to_string(), content("its own")),
            ("edited".to_owned(), content("edited by the others")),
            ("kept".to_owned(), content("kept")),
            ("mine".to_owned(), content("its edit")),
            ("moved away".to_owned(), content("moved")),
        ]);
        for peer in &users.world.peers {
            assert_eq!((peer.folder.contents(), peer.folder.nodes.len()), (wanted.clone(), wanted.len()));
        }
        let mut set_aside = users.world.peers[AWAY].folder.trash.clone();
        set_aside.sort_unstable();
        let mut old = ["deleted", "edited", "again", "d/gone"].map(content).to_vec();
        old.sort_unstable();
        assert_eq!(set_aside, old, "tracker: {tracker:?}");
    }
}
