//! Calls to the disk that fail, one in each run.

use crate::names::{content, path};
use crate::users::Users;
use crate::world::World;

const FAILING: usize = 1;

/// Something of every kind is done at the peer that fails, by its own user and for others: files and folders come, are replaced with
/// and without a conflict, touched, renamed and deleted. How many calls it took.
fn run(fails_at: Option<u64>) -> Result<u64, String> {
    let mut users = Users::of(World::without_tracker(3, 1));
    users.world.peers[FAILING].folder.fails_at = fails_at;
    users.fails = Some(FAILING);
    for name in ["a", "b.txt", "d/x", "d/e/y", "moved", "touched", "deleted", "own"] {
        users.write(0, &path(name), content(name), 0, false);
    }
    users.rest()?;
    users.write(0, &path("a"), content("a, edited"), 1_000_000_000, false);
    users.write(0, &path("b.txt"), content("their b"), 2_000_000_000, false);
    users.write(FAILING, &path("b.txt"), content("its b"), 1_000_000_000, false);
    users.rename(0, &path("moved"), &path("d/moved"));
    users.touch(0, &path("touched"), 1_000_000_000, true);
    users.delete(0, &path("deleted"));
    users.delete(0, &path("d/e"));
    users.make_folder(0, &path("f/g"));
    users.write(FAILING, &path("own"), content("own, edited"), 1_000_000_000, false);
    users.write(FAILING, &path("new"), content("new"), 0, false);
    users.rename(FAILING, &path("d/x"), &path("h/x"));
    users.rest()?;
    users.delete(FAILING, &path("h"));
    users.write(0, &path("d"), content("a file now"), 3_000_000_000, false);
    users.rest()?;
    Ok(users.world.peers[FAILING].folder.n_calls)
}

/// F53: the i-th call of a peer to its disk fails (a look, a step of the hands, making it durable, a save of what it knows), for
/// each i until a run needs no more. What was done and is not durable is done again, what was not done too: no write of a user's is lost
/// (I2), all folders end alike (I3), and nothing that was deleted is back (I4). What a single call of the real hands leaves behind stands
/// at `f53_the_ith_call_under_the_hands_fails`.
#[test]
fn f53_the_ith_call_to_the_disk_fails() {
    let mut n_runs = 0;
    for fails_at in 1.. {
        let n_calls = run(Some(fails_at)).unwrap_or_else(|error| panic!("call {fails_at}: {error}"));
        if n_calls < fails_at {
            break;
        }
        n_runs += 1;
    }
    assert!(n_runs > 100, "{n_runs} calls only");
}
