//! Two users who do two things to one name, in every order in which that can come about.

use std::collections::BTreeMap;

use potluck_common::ContentId;

use crate::names::{content, copy, path};
use crate::users::Users;
use crate::world::World;

/// What a user does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Write(&'static str, &'static str),
    MakeFolder(&'static str),
    Delete(&'static str),
    Rename(&'static str, &'static str),
}

use Deed::{Delete, MakeFolder, Rename, Write};

/// Two things done at once.
struct Case {
    /// What everybody has before.
    before: &'static [(&'static str, &'static str)],
    ours: &'static [Deed],
    theirs: &'static [Deed],
    /// What everybody has afterwards if neither user saw what the other did: names with contents (`/`: a folder). A name
    /// that ends with `.*` is that of a copy.
    after: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 7] = [
    // Delete ∥ change.
    Case { before: &[("a", "old")], ours: &[Delete("a")], theirs: &[Write("a", "new")], after: &[("a", "new")] },
    // Rename ∥ change.
    Case {
        before: &[("a", "old")],
        ours: &[Rename("a", "b")],
        theirs: &[Write("a", "new")],
        after: &[("a", "new"), ("b", "old")],
    },
    // Folder ∥ file of one name.
    Case {
        before: &[],
        ours: &[MakeFolder("n")],
        theirs: &[Write("n", "file")],
        after: &[("n", "/"), ("n.*", "file")],
    },
    Case {
        before: &[],
        ours: &[Write("n/x", "inner")],
        theirs: &[Write("n", "file")],
        after: &[("n", "/"), ("n/x", "inner"), ("n.*", "file")],
    },
    Case {
        before: &[("n", "old")],
        ours: &[MakeFolder("n")],
        theirs: &[Write("n", "new")],
        after: &[("n", "/"), ("n.*", "new")],
    },
    // Delete folder ∥ create in it, and rename folder ∥ create in it.
    Case {
        before: &[("d/x", "old")],
        ours: &[Delete("d")],
        theirs: &[Write("d/y", "new")],
        after: &[("d", "/"), ("d/y", "new")],
    },
    Case {
        before: &[("d/x", "old")],
        ours: &[Rename("d", "e")],
        theirs: &[Write("d/y", "new")],
        after: &[("d", "/"), ("d/y", "new"), ("e", "/"), ("e/x", "old")],
    },
];

/// What happens at one of the two peers, beside what its user does: in this order.
const STEPS: [fn(&mut World, usize); 4] = [
    // It begins what it knows is to be done, does it, sees what has changed, and tells of it.
    World::begin_all,
    World::finish_all,
    World::look_around,
    |world, n| {
        world.advance(potluck_sync::guard::SETTLE);
        world.begin_all(n);
        world.tell_neighbours(n);
        // Who only looks on follows at once.
        world.settle(ONLOOKER);
    },
];

const ONLOOKER: usize = 2;

/// How far each of the two is: whether its user has acted, and how many steps its machine has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    has_acted: bool,
    n_steps: usize,
}

/// What happens next: at which peer, and whether it is its user who acts.
type Turn = (usize, bool);

/// Calls with every order of all turns.
fn each_order(progress: [Progress; 2], turns: &mut Vec<Turn>, run: &mut dyn FnMut(&[Turn])) {
    let mut is_over = true;
    for n in 0..2 {
        for is_user in [true, false] {
            let mut next = progress;
            match is_user {
                true if !next[n].has_acted => next[n].has_acted = true,
                false if next[n].n_steps < STEPS.len() => next[n].n_steps += 1,
                _ => continue,
            }
            is_over = false;
            turns.push((n, is_user));
            each_order(next, turns, run);
            turns.pop();
        }
    }
    if is_over {
        run(turns);
    }
}

fn act(users: &mut Users, n: usize, deeds: &[Deed], mtime_ns: i64) {
    for deed in deeds {
        match deed {
            Write(name, text) => users.write(n, &path(name), content(text), mtime_ns, false),
            MakeFolder(name) => drop(users.make_folder(n, &path(name))),
            Delete(name) => users.delete(n, &path(name)),
            Rename(from, to) => users.rename(n, &path(from), &path(to)),
        }
    }
}

/// Names and contents.
fn tree(users: &Users, n: usize) -> BTreeMap<String, Option<ContentId>> {
    let look = users.world.peers[n].folder.look();
    look.into_iter().map(|(name, node)| (name, node.map(|(content, ..)| content))).collect()
}

fn wanted(after: &[(&str, &str)]) -> BTreeMap<String, Option<ContentId>> {
    let named = |(name, text): &(&str, &str)| match name.strip_suffix(".*") {
        Some(origin) => (copy(origin, text).to_string(), Some(content(text))),
        None => ((*name).to_owned(), (*text != "/").then(|| content(text))),
    };
    after.iter().map(named).collect()
}

/// Runs one order; whether neither user saw what the other did.
fn run(case: &Case, turns: &[Turn], is_told: bool) -> Result<bool, String> {
    let mut users = Users::of(World::without_tracker(3, 1));
    users.world.is_told = is_told;
    for (name, text) in case.before {
        users.write(0, &path(name), content(text), 0, false);
    }
    users.rest()?;
    let before = tree(&users, 0);
    let mut n_blind = 0;
    let mut n_steps = [0; 2];
    for (n, is_user) in turns.iter().copied() {
        if is_user {
            n_blind += usize::from(tree(&users, n) == before);
            users.world.peers[n].folder.sync();
            act(&mut users, n, [case.ours, case.theirs][n], 1_000_000_000);
        } else {
            STEPS[n_steps[n]](&mut users.world, n);
            n_steps[n] += 1;
        }
        users.take_notes();
    }
    users.rest()?;
    if n_blind == 2 && tree(&users, 0) != wanted(case.after) {
        return Err(format!("another end{}", users.world.differences()));
    }
    Ok(n_blind == 2)
}

/// F43: a file is deleted, or renamed, while somebody else changes it; a folder and a file get one name; a folder is deleted, or
/// renamed, while somebody else puts something into it. In every order of what two users do, and what their machines see, do and
/// tell, a third one looking on, nothing that a user made is lost and nothing that was deleted comes back (I2, I4). Whenever neither
/// saw what the other did, the same one wins on all three peers, whatever the order (I3).
#[test]
fn f43_the_same_wins_in_every_order() {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let check = |at: usize| {
            let case = &CASES[at];
            let (mut n_orders, mut n_blind, mut failed) = (0, 0, None);
            each_order([Progress::default(); 2], &mut Vec::new(), &mut |turns| {
                if failed.is_none() {
                    n_orders += 1;
                    match run(case, turns, false) {
                        Ok(is_blind) => n_blind += usize::from(is_blind),
                        Err(error) => failed = Some(format!("case {at}, {turns:?}: {error}")),
                    }
                }
            });
            // Else nothing was tested.
            assert!(failed.is_some() || (n_blind > 1_000 && n_blind < n_orders), "{n_blind} of {n_orders}");
            failed
        };
        let threads: Vec<_> = (0..2)
            .map(|first| scope.spawn(move || (first..CASES.len()).step_by(2).filter_map(check).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
