//! `.potluck/`: the peer's own state inside the share folder.
//!
//! Here are the lock that keeps a second peer out, the identity, and small state files. A state file is written to
//! the older of two slots: temporary, sync, rename, sync of the folder. Each carries a checksum and a generation, and the
//! previous generation stays until the next one is durable; whatever a crash leaves, [`load`] gives the newest whole one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, OpenOptions, OpenOptionsExt};
use potluck_common::identity::Identity;
use potluck_common::share_path::STATE_DIR;
use rustix::fs::FlockOperation;

use super::folder::{ShareFolder, sync_dir};
use crate::verb::{Failed, FailureKind};

/// Name of the folder of unfinished downloads, inside the state folder.
pub const PARTIAL_DIR: &str = "partial";
/// From when on minutes are counted for [`next_generation`]: the beginning of 2026.
const CLOCK_START: Duration = Duration::from_secs(1_767_225_600);
/// Later than this, in 2057, starts are only counted. A clock that is wrong must not use up the numbers that writes can have.
const CLOCK_END: u64 = 1 << 24;
/// How long a folder may be locked before another peer is taken to run on it.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
const MAGIC: &[u8; 8] = b"potluck1";
/// No state file is longer than this; a longer one is not ours.
const MAX_STATE_LEN: u64 = 64 << 20;

/// The state folder of one share folder, locked for this process.
#[derive(Debug)]
pub struct StateDir {
    dir: Dir,
    /// Held for as long as we live; the system lets go of it whatever ends us.
    _lock: File,
}

/// Takes the lock; waits a little for a holder that is about to let go. A program that our own process is just starting has a copy of every
/// open file until it runs, and with it of a lock that was let go here.
fn lock_soon(lock: &File) -> Result<(), rustix::io::Errno> {
    let began = Instant::now();
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            locked => return locked,
        }
    }
}

impl StateDir {
    /// Opens it, made if missing, and locks it. Waits for a moment if it is locked.
    ///
    /// # Errors
    /// If another peer runs on this share folder, or the folder cannot be written.
    pub fn open(folder: &ShareFolder) -> Result<Self, Failed> {
        let dir = Self::make(folder).map_err(|error| unusable(folder, &error))?;
        let lock = dir
            .open_with("lock", OpenOptions::new().write(true).create(true).mode(0o600))
            .map_err(|error| unusable(folder, &error))?
            .into_std();
        match lock_soon(&lock) {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Failed::new(
                FailureKind::Failed,
                format!("another peer is already running on {}", folder.path().display()),
                "Use its shell (potluck shell), end it (potluck stop), or name another folder with --share.",
            )),
            Err(error) => Err(unusable(folder, &error.into())),
        }
    }

    fn make(folder: &ShareFolder) -> io::Result<Dir> {
        let mut private = DirBuilder::new();
        private.mode(0o700).recursive(true);
        folder.dir().create_dir_with(STATE_DIR, &private)?;
        let dir = folder.dir().open_dir(STATE_DIR)?;
        dir.create_dir_with(PARTIAL_DIR, &private)?;
        Ok(dir)
    }

    /// The folder's handle.
    pub const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Who we are and the number of this start at `now`, which is durable before it is returned. Without a usable identity
    /// a new one is made: a lost state must make a new peer, never an old-looking one.
    ///
    /// # Errors
    /// If the state folder cannot be written.
    pub fn identity(&self, folder: &ShareFolder, now: SystemTime) -> Result<(Identity, u64), Failed> {
        let stored = load(&self.dir, "identity").and_then(|bytes| {
            let (secret, generation) = bytes.split_first_chunk::<32>()?;
            Some((*secret, u64::from_le_bytes(generation.try_into().ok()?)))
        });
        let (secret, generation) = match stored {
            Some((secret, generation)) => (secret, next_generation(generation, now)),
            None => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|error| unusable(folder, &io::Error::other(error)))?;
                (secret, next_generation(0, now))
            }
        };
        let bytes = [&secret[..], &generation.to_le_bytes()].concat();
        save(&self.dir, "identity", &bytes).map_err(|error| unusable(folder, &error))?;
        Ok((Identity::from_secret(&secret), generation))
    }

    /// Forgets who we are, so that the next start makes a new identity.
    ///
    /// # Errors
    /// As `unlink`.
    pub fn forget_identity(&self) -> io::Result<()> {
        remove(&self.dir, "identity")
    }
}

/// The number of a start. It grows from start to start, whatever the clock says; a clock that is right makes it also larger
/// than those of starts that a restored backup knows nothing of.
fn next_generation(last: u64, now: SystemTime) -> u64 {
    let minutes = now.duration_since(UNIX_EPOCH + CLOCK_START).unwrap_or_default().as_secs() / 60;
    (last + 1).max(minutes.min(CLOCK_END))
}

fn unusable(folder: &ShareFolder, error: &io::Error) -> Failed {
    let path = folder.path().display();
    let message = format!("cannot keep state in {path}/{STATE_DIR}: {error}");
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
            Failed::new(FailureKind::NoSpace, message, "Free some space and try again.")
        }
        Some(rustix::io::Errno::ROFS | rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Failed::new(
            FailureKind::Failed,
            message,
            "The share folder must be writable, also for sharing only; change its permissions or name another with --share.",
        ),
        _ => Failed::new(FailureKind::Failed, message, "Name another folder with --share, or mend this one."),
    }
}

/// Writes a state file durably; the previous one stays readable until the new one is.
///
/// # Errors
/// As the file operations; a failed sync is a failed save.
pub fn save(dir: &Dir, name: &str, payload: &[u8]) -> io::Result<()> {
    let slots = [read_slot(dir, &slot(name, 0)), read_slot(dir, &slot(name, 1))];
    let generation = slots.iter().flatten().map(|(generation, _)| *generation).max().unwrap_or(0) + 1;
    let older = match &slots {
        [Some((a, _)), Some((b, _))] => u8::from(b < a),
        [Some(_), None] => 1,
        _ => 0,
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(generation.to_le_bytes());
    bytes.extend(payload);
    bytes.extend(blake3::hash(&bytes).as_bytes());
    let (target, temporary) = (slot(name, older), format!("{name}.tmp"));
    let mut file = dir.open_with(&temporary, OpenOptions::new().write(true).create(true).truncate(true).mode(0o600))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    dir.rename(&temporary, dir, &target)?;
    sync_dir(dir)
}

/// The payload of the newest whole generation, if there is one.
pub fn load(dir: &Dir, name: &str) -> Option<Vec<u8>> {
    let slots = [read_slot(dir, &slot(name, 0)), read_slot(dir, &slot(name, 1))];
    slots.into_iter().flatten().max_by_key(|(generation, _)| *generation).map(|(_, payload)| payload)
}

/// Removes a state file in all its generations.
///
/// # Errors
/// As `unlink`, unless it was not there.
pub fn remove(dir: &Dir, name: &str) -> io::Result<()> {
    for name in [slot(name, 0), slot(name, 1), format!("{name}.tmp")] {
        match dir.remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn slot(name: &str, number: u8) -> String {
    format!("{name}.{number}")
}

fn read_slot(dir: &Dir, name: &str) -> Option<(u64, Vec<u8>)> {
    let mut bytes = Vec::new();
    dir.open(name).ok()?.take(MAX_STATE_LEN).read_to_end(&mut bytes).ok()?;
    let (signed, sum) = bytes.split_last_chunk::<32>()?;
    let (generation, payload) = signed.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    (blake3::hash(signed) == *sum).then(|| (u64::from_le_bytes(*generation), payload.to_vec()))
}

#[cfg(test)]
mod tests {
    use potluck_common::protocol::GENERATION_SHIFT;
    use potluck_common::register::MAX_WRITE;

    use super::*;

    fn dir() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap();
        (temp, dir)
    }

    #[test]
    fn newest_whole_generation_wins() {
        let (_temp, dir) = dir();
        assert_eq!(load(&dir, "x"), None);
        for n in 0u8..5 {
            save(&dir, "x", &[n; 10]).unwrap();
            assert_eq!(load(&dir, "x"), Some(vec![n; 10]));
        }
        remove(&dir, "x").unwrap();
        assert_eq!(load(&dir, "x"), None);
    }

    /// F49, F04: the newest slot damaged in any way gives the previous generation, never a panic or a mixture.
    #[test]
    fn damage_falls_back_to_the_previous_generation() {
        let (temp, dir) = dir();
        save(&dir, "x", b"old").unwrap();
        save(&dir, "x", b"new").unwrap();
        let newest = temp.path().join("x.1");
        let whole = std::fs::read(&newest).unwrap();
        let check = |bytes: &[u8]| {
            std::fs::write(&newest, bytes).unwrap();
            assert_eq!(load(&dir, "x").as_deref(), Some(&b"old"[..]));
        };
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            check(&flipped);
            check(&whole[..at]);
        }
        check(&vec![0; whole.len()]);
        save(&dir, "x", b"newer").unwrap();
        assert_eq!(load(&dir, "x").as_deref(), Some(&b"newer"[..]));
    }

    /// F38, F40: a start after a restored backup has a number of its own, and clocks that jump take nothing back.
    #[test]
    fn numbers_of_starts() {
        let at = |minutes: u64| UNIX_EPOCH + CLOCK_START + Duration::from_secs(60 * minutes);
        for (last, now, want) in [
            (0, UNIX_EPOCH, 1),
            (7, UNIX_EPOCH, 8),
            (0, at(500), 500),
            (500, at(500), 501),
            (900, at(500), 901),
            // The lost life began at 600, the backup is from before.
            (500, at(700), 700),
            (3, at(u64::from(u32::MAX)), CLOCK_END),
            (CLOCK_END, at(u64::from(u32::MAX)), CLOCK_END + 1),
        ] {
            assert_eq!(next_generation(last, now), want, "{last}, {now:?}");
        }
        const { assert!(CLOCK_END << GENERATION_SHIFT < MAX_WRITE / 2 + 2) };
    }

    #[test]
    fn one_peer_a_folder_and_one_identity_for_life() {
        let temp = tempfile::tempdir().unwrap();
        let folder = ShareFolder::open(temp.path()).unwrap();
        let state = StateDir::open(&folder).unwrap();
        let second = StateDir::open(&folder).unwrap_err();
        assert!(second.message.contains("already running"), "{second:?}");
        let at = |minutes: u64| UNIX_EPOCH + CLOCK_START + Duration::from_secs(60 * minutes);
        let (first, generation) = state.identity(&folder, UNIX_EPOCH).unwrap();
        assert_eq!(generation, 1);
        drop(state);
        let state = StateDir::open(&folder).unwrap();
        let (again, generation) = state.identity(&folder, at(1)).unwrap();
        assert_eq!((first.peer_id(), 2), (again.peer_id(), generation));
        state.forget_identity().unwrap();
        let (other, generation) = state.identity(&folder, at(3)).unwrap();
        assert_eq!(generation, 3);
        assert_ne!(first.peer_id(), other.peer_id());
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(temp.path().join(STATE_DIR)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
