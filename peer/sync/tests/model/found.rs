//! What random histories have found, each as the shortest history that shows it. The seeds themselves stand at
//! [`history`](crate::history).

use std::collections::BTreeMap;

use potluck_common::SharePath;
use potluck_sync::action::{Seen, Source};
use potluck_sync::guard::SETTLE;

use crate::names::{content, copy, path};
use crate::users::Users;
use crate::world::World;

const SECOND: i64 = 1_000_000_000;

/// Two peers that have scanned their empty folders.
fn two() -> Users {
    let mut users = Users::of(World::without_tracker(2, 1));
    users.rest().unwrap();
    users
}

/// Each has written a version of `b`, and has heard nothing of the other's, which is older or younger.
fn two_versions(texts: [&str; 2], seconds: [i64; 2]) -> Users {
    let mut users = two();
    for n in 0..2 {
        users.write(n, &path("b"), content(texts[n]), seconds[n] * SECOND, false);
    }
    users
}

/// Both have `b` with this content, and nothing else.
fn check_b(users: &Users, text: &str) {
    for peer in &users.world.peers {
        assert_eq!(peer.folder.contents(), BTreeMap::from([("b".to_owned(), content(text))]));
    }
}

/// The user deletes a conflict copy and saves the file itself, with a time that is older than the copy's: by the index the copy's
/// version has the name now. It is not put there before it is known that the user has deleted it; else it would have stayed. (Seed 853.)
#[test]
fn a_deleted_copy_does_not_come_back_under_the_name() {
    let mut users = two_versions(["ours", "theirs"], [9, 5]);
    users.rest().unwrap();
    users.delete(0, &copy("b", "theirs"));
    users.write(0, &path("b"), content("new"), SECOND, false);
    users.world.look_around(0);
    users.world.begin_all(0);
    users.world.finish_all(0);
    users.rest().unwrap();
    check_b(&users, "new");
}

/// The same while the copy is only just being put there, and the user is quicker than the news of it. (Seed 4314.)
#[test]
fn a_copy_that_is_deleted_as_it_comes_does_not_come_back_under_the_name() {
    let mut users = two_versions(["ours", "theirs"], [9, 5]);
    for n in 0..2 {
        users.world.settle(n);
    }
    users.world.tell_neighbours(1);
    users.world.begin_all(0);
    users.world.perform_all(0);
    users.write(0, &path("b"), content("new"), SECOND, false);
    users.delete(0, &copy("b", "theirs"));
    users.world.look_around(0);
    users.world.begin_all(0);
    users.world.finish_all(0);
    users.rest().unwrap();
    check_b(&users, "new");
}

/// A file is being given another time, and that time is withdrawn meanwhile. Who dies before it is known that it was given knows it
/// afterwards for its own doing, and not for its user's. (Seed 3820, where what stood there was a conflict copy, and became a file
/// of its own.)
#[test]
fn a_time_that_was_withdrawn_is_not_taken_for_the_users() {
    let mut users = two_versions(["same", "same"], [9, 5]);
    for n in 0..2 {
        users.world.settle(n);
    }
    users.world.tell_neighbours(0);
    users.world.begin_all(1);
    users.delete(0, &path("b"));
    users.world.settle(0);
    users.world.advance(SETTLE);
    users.world.begin_all(0);
    users.world.tell_neighbours(0);
    users.world.begin_all(1);
    users.world.perform_all(1);
    users.world.restart(1);
    users.rest().unwrap();
    for peer in &users.world.peers {
        assert_eq!(peer.folder.file(&path("b")).map(|file| file.identity.mtime), Some((5, 0)));
    }
}

/// Somebody has heard of a file and not yet of the folder that it lies in, which somebody made for itself, and deletes both: the
/// folder stays, since its making was not known. The oracle knows. (Seed 662.)
#[test]
fn a_folder_that_was_not_heard_of_is_not_deleted() {
    let mut users = two();
    users.make_folder(0, &path("d"));
    users.write(0, &path("d/f"), content("f"), 0, false);
    users.world.settle(0);
    let entry = users.world.peers[0].machine.index().entry(&path("d/f")).unwrap();
    users.world.peers[1].machine.on_remote(vec![entry], Source(1));
    users.world.settle(1);
    users.delete(1, &path("d"));
    users.rest().unwrap();
    for peer in &users.world.peers {
        assert_eq!(peer.folder.nodes.keys().map(SharePath::as_str).collect::<Vec<_>>(), ["d"]);
    }
}

/// Somebody deletes a copy, and who has not heard of it gives the copy the time that it has, which nobody can see: it is gone. (Seed
/// 2417.)
#[test]
fn who_changes_nothing_keeps_nothing() {
    let mut users = two_versions(["ours", "theirs"], [9, 5]);
    users.rest().unwrap();
    users.delete(0, &copy("b", "theirs"));
    users.touch(1, &copy("b", "theirs"), 5 * SECOND, false);
    users.rest().unwrap();
    check_b(&users, "ours");
}

/// Half of an action is left by a crash, and its user edits there: the copy that was put there is taken for a file of its own at its
/// name, which is excused. Then somebody else may make a file of this name too, and the copy gets a copy. (Seeds 5691 and 7459.)
#[test]
fn what_is_excused_may_get_a_copy() {
    let mut users = two_versions(["theirs", "ours"], [5, 9]);
    for n in 0..2 {
        users.world.settle(n);
    }
    users.world.tell_neighbours(0);
    users.world.begin_all(1);
    users.world.perform_all(1);
    users.write(1, &path("b"), content("new"), SECOND, false);
    users.world.restart(1);
    let (now, name, copied) = (users.world.now, path("b"), copy("b", "theirs"));
    let peer = &mut users.world.peers[1];
    let [seen, seen_copy] = [&name, &copied].map(|real| peer.folder.seen(real).unwrap());
    // The scan is over before the copy is hashed.
    peer.machine.on_scan_began();
    peer.machine.on_seen(&copied, Seen::Unsettled, now);
    peer.machine.on_seen(&name, seen, now);
    peer.machine.on_scan_ended(now);
    peer.machine.on_seen(&copied, seen_copy, now);
    users.write(0, &copied, content("mine"), 9 * SECOND, false);
    users.rest().unwrap();
    let again = copy(copied.as_str(), "theirs").to_string();
    for peer in &users.world.peers {
        assert_eq!(peer.folder.contents().get(&again), Some(&content("theirs")));
    }
}
