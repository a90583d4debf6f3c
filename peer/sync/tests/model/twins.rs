//! Names that differ in case or in Unicode form, where not every file system tells them apart.

use std::collections::BTreeMap;
use std::time::Duration;

use potluck_common::ContentId;

use crate::names::{content, path};
use crate::users::Users;
use crate::world::World;

/// Its file system takes such names for one.
const FOLDING: usize = 2;
/// Rounds, in which a peer that had to do something would have done it.
const N_ROUNDS: usize = 8;

/// Case alone, and composed and decomposed.
const TWINS: [[&str; 2]; 2] = [["A.txt", "a.txt"], ["caf\u{e9}", "cafe\u{301}"]];

fn files(users: &Users, n: usize) -> BTreeMap<String, ContentId> {
    users.world.peers[n].folder.contents()
}

fn live_on(users: &mut Users) {
    for _ in 0..N_ROUNDS {
        users.world.round();
        users.world.advance(Duration::from_secs(60));
        users.take_notes();
    }
}

fn swarm() -> Users {
    Users::of(World::without_tracker(3, 1))
}

/// F44, P10, P11: two names that differ in case only, or in Unicode form only, are two files wherever the file system tells them
/// apart: created on two peers, edited, and one of them deleted.
#[test]
fn f44_p11_twins_are_two_files() {
    for [one, other] in TWINS {
        let mut users = swarm();
        users.write(0, &path(one), content("one"), 0, false);
        users.write(1, &path(other), content("other"), 1_000_000_000, false);
        users.rest().unwrap();
        let wanted = |files: &[(&str, &str)]| -> BTreeMap<_, _> {
            files.iter().map(|(name, text)| ((*name).to_owned(), content(text))).collect()
        };
        assert_eq!(files(&users, 2), wanted(&[(one, "one"), (other, "other")]));
        users.write(2, &path(one), content("edited"), 2_000_000_000, false);
        users.delete(2, &path(other));
        users.rest().unwrap();
        assert_eq!(files(&users, 0), wanted(&[(one, "edited")]));
    }
}

/// F44, P10, P11: a peer whose file system takes both for one name has one of them, with the bytes that belong to that name; the other
/// never lands on it, nor on what is edited there later, and the others keep both. When one is gone everywhere, the other comes.
#[test]
fn f44_p10_no_twin_lands_on_the_other() {
    for [one, other] in TWINS {
        for first in [one, other] {
            let mut users = swarm();
            users.world.peers[FOLDING].folder.is_folding = true;
            // In some runs it has one of them before it hears of the other.
            let second = if first == one { other } else { one };
            users.write(0, &path(first), content(first), 0, false);
            if first == one {
                users.rest().unwrap();
            }
            users.write(1, &path(second), content(second), 1_000_000_000, false);
            live_on(&mut users);
            let both: BTreeMap<_, _> = [one, other].map(|name| (name.to_owned(), content(name))).into();
            for n in [0, 1] {
                assert_eq!(files(&users, n), both, "{first}");
            }
            let here = files(&users, FOLDING);
            let (has, bytes) = here.first_key_value().unwrap();
            assert_eq!((here.len(), bytes), (1, &content(has)));
            assert!(users.world.peers[FOLDING].folder.trash.is_empty());

            // Each of the two is edited by somebody who has both.
            for (at, name) in [one, other].into_iter().enumerate() {
                users.write(at, &path(name), content(&format!("{name} edited")), 3_000_000_000, false);
            }
            live_on(&mut users);
            let edited: BTreeMap<_, _> =
                [one, other].map(|name| (name.to_owned(), content(&format!("{name} edited")))).into();
            for n in [0, 1] {
                assert_eq!(files(&users, n), edited, "{first}");
            }
            let has = has.clone();
            assert_eq!(files(&users, FOLDING), [(has.clone(), edited[&has])].into());
            assert_eq!(users.world.peers[FOLDING].folder.trash, [content(&has)]);

            // Without its twin there is nothing in its way.
            users.delete(0, &path(&has));
            live_on(&mut users);
            let left = if has == one { other } else { one };
            for n in 0..3 {
                assert_eq!(files(&users, n), [(left.to_owned(), edited[left])].into(), "{first} {n}");
            }
        }
    }
}

/// F44, P10, P11: the one that cannot come counts as blocked for as long as that is so, whenever it is asked: else its peer would have
/// something to do for ever, and not say what. It comes soon after the other one has gone, without another scan.
#[test]
fn f44_p10_a_twin_that_cannot_come_stays_reported() {
    for [one, other] in TWINS {
        let mut users = swarm();
        users.world.peers[FOLDING].folder.is_folding = true;
        users.write(0, &path(one), content("one"), 0, false);
        users.rest().unwrap();
        users.write(1, &path(other), content("other"), 1_000_000_000, false);
        live_on(&mut users);
        for _ in 0..10 {
            users.world.settle(FOLDING);
            let machine = &users.world.peers[FOLDING].machine;
            assert_eq!(machine.blocked().collect::<Vec<_>>(), [&path(other)]);
            assert!(!machine.is_at_rest());
            users.world.advance(Duration::from_secs(20));
        }
        users.delete(FOLDING, &path(one));
        for _ in 0..4 {
            users.world.settle(FOLDING);
            users.world.advance(Duration::from_secs(20));
        }
        assert_eq!(files(&users, FOLDING), [(other.to_owned(), content("other"))].into());
        assert_eq!(users.world.peers[FOLDING].machine.blocked().count(), 0);
        users.rest().unwrap();
    }
}

/// F44, P10: two folders whose names differ in case only, with a file of one name in both. Nothing lands on anything, and all bytes are
/// there on every peer that tells the two apart. (That peers tell such folders apart is not built: a look at the name that is missing finds
/// the other folder, so files of the one may come under the name of the other, for all.)
#[test]
fn f44_p10_nothing_is_lost_in_twin_folders() {
    let mut users = swarm();
    users.world.peers[FOLDING].folder.is_folding = true;
    users.write(0, &path("D/x"), content("x"), 0, false);
    users.write(1, &path("d/y"), content("y"), 0, false);
    users.write(1, &path("d/x"), content("other x"), 1_000_000_000, false);
    live_on(&mut users);
    let mut all = ["x", "y", "other x"].map(content).to_vec();
    all.sort_unstable();
    for n in [0, 1] {
        let mut there: Vec<_> = files(&users, n).into_values().collect();
        there.sort_unstable();
        assert_eq!(there, all, "{n}");
    }
}
