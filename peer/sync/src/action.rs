//! What the machine is told and what it wants done: the words between it and the hands in the share folder.
//!
//! Nothing here decides. An action names what must be there for it to be done (`expect`, or a free name); hands that find
//! something else leave everything as it is and say so.

use std::fmt;
use std::time::Duration;

use potluck_common::projection::Place;
use potluck_common::register::Value;
use potluck_common::{ContentId, SharePath};

use super::file_identity::FileIdentity;

/// What stands at a real path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A file whose bytes are known.
    File {
        /// The state in which it was hashed.
        identity: FileIdentity,
        /// Its bytes.
        content_id: ContentId,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A folder.
    Folder,
    /// A file that is being written or hashed: it is there, what it is follows.
    Unsettled,
}

/// What becomes of a file that is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// It goes to the trash.
    Trash,
    /// It lost its name to a concurrent version and stays here, at a free name.
    Keep(Place),
}

/// One thing to be done in the share folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A file at a free name. Its content may be in the folder already (`Machine::holders`), or in the trash.
    Place(Place),
    /// A file in the place of another one.
    Replace {
        /// What is to stand there.
        place: Place,
        /// What stands there now.
        expect: FileIdentity,
        /// What becomes of that.
        old: Old,
    },
    /// Other times or mode for the same content.
    SetMeta {
        /// What is to stand there.
        place: Place,
        /// What stands there now.
        expect: FileIdentity,
    },
    /// A file gets a free name. Its times and mode stay; another action sets them if need be.
    Move {
        /// Where it is.
        from: SharePath,
        /// What stands there.
        expect: FileIdentity,
        /// Where it is to be.
        place: Place,
    },
    /// A folder at a free name.
    MakeFolder(Place),
    /// A file goes to the trash.
    Remove {
        /// Where.
        real: SharePath,
        /// What stands there.
        expect: FileIdentity,
    },
    /// An empty folder goes.
    RemoveFolder {
        /// Where.
        real: SharePath,
    },
}

impl Action {
    /// The real paths that it touches, where it leads to first.
    pub fn touches(&self) -> Vec<&SharePath> {
        match self {
            Self::Place(place)
            | Self::SetMeta { place, .. }
            | Self::MakeFolder(place)
            | Self::Replace { place, old: Old::Trash, .. } => vec![&place.real],
            Self::Replace { place, old: Old::Keep(kept), .. } => vec![&place.real, &kept.real],
            Self::Move { from, place, .. } => vec![&place.real, from],
            Self::Remove { real, .. } | Self::RemoveFolder { real } => vec![real],
        }
    }

    /// What it puts where.
    pub fn puts(&self) -> Vec<&Place> {
        match self {
            Self::Place(place)
            | Self::SetMeta { place, .. }
            | Self::MakeFolder(place)
            | Self::Move { place, .. }
            | Self::Replace { place, old: Old::Trash, .. } => vec![place],
            Self::Replace { place, old: Old::Keep(kept), .. } => vec![place, kept],
            Self::Remove { .. } | Self::RemoveFolder { .. } => Vec::new(),
        }
    }

    /// Whether it makes a name out of what is in the folder already.
    pub const fn makes_name(&self) -> bool {
        matches!(self, Self::MakeFolder(_) | Self::Move { .. })
    }

    /// What it puts somewhere, if it needs bytes for it.
    pub const fn fetches(&self) -> Option<&Place> {
        match self {
            Self::Place(place) | Self::Replace { place, .. } => Some(place),
            _ => None,
        }
    }
}

/// As a sentence for the log.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(Place { real, value: Value::File(file), .. }) => {
                write!(f, "give {} the name {real}", file.content_id.short())
            }
            Self::Place(Place { real, value: Value::Folder, .. }) | Self::MakeFolder(Place { real, .. }) => {
                write!(f, "make the folder {real}")
            }
            Self::Replace { place: Place { real, value, .. }, old, .. } => {
                let new = value.file().map(|file| file.content_id.short()).unwrap_or_default();
                match old {
                    Old::Trash => write!(f, "give {new} the name {real}, and move what has it to the trash"),
                    Old::Keep(kept) => write!(f, "give {new} the name {real}, and move what has it to {}", kept.real),
                }
            }
            Self::SetMeta { place, .. } => write!(f, "set time and executable bit of {}", place.real),
            Self::Move { from, place, .. } => write!(f, "move {from} to {}", place.real),
            Self::Remove { real, .. } => write!(f, "move {real} to the trash"),
            Self::RemoveFolder { real } => write!(f, "remove the folder {real}"),
        }
    }
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and durable.
    Done {
        /// The file that stands at the place now; none for folders and removals.
        identity: Option<FileIdentity>,
        /// Under [`Old::Keep`] the file that was kept.
        kept: Option<FileIdentity>,
    },
    /// It was given up before anything was touched.
    Dropped,
    /// Something else stands where it should be done. Nothing was touched; what is there will be asked for.
    Changed,
    /// The name is not free, maybe because the file system takes another name for the same.
    Taken,
    /// The folder is not empty.
    NotEmpty,
    /// It did not work; to be tried again.
    Failed {
        /// After so long.
        again_after: Duration,
    },
}

impl Outcome {
    /// Done, with nothing to tell of it: a folder or a removal.
    pub const DONE: Self = Self::Done { identity: None, kept: None };

    /// Done: this file stands there now.
    pub const fn placed(identity: FileIdentity) -> Self {
        Self::Done { identity: Some(identity), kept: None }
    }
}

/// Where entries of other replicas come from and are pushed to: a tracker or a peer, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(pub u32);

#[cfg(test)]
mod tests {
    use potluck_common::register::FileValue;

    use super::*;

    #[test]
    fn sentences() {
        let file = FileValue { mtime_ns: 0, content_id: ContentId::from_bytes([0xab; 32]), len: 1, executable: false };
        let place = |real: &str, value| {
            let real: SharePath = real.parse().unwrap();
            Place { origin: real.clone(), real, value, dots: Vec::new() }
        };
        let [a, b] = ["d/a", "d/b"].map(|real| place(real, Value::File(file)));
        let folder = place("d", Value::Folder);
        let expect = FileIdentity { inode: (1, 1), len: 1, mtime: (0, 0), ctime: (0, 0) };
        let check = |action: Action, want: &str| assert_eq!(action.to_string(), want);
        check(Action::Place(a.clone()), "give abababab the name d/a");
        check(Action::Place(folder.clone()), "make the folder d");
        check(Action::MakeFolder(folder.clone()), "make the folder d");
        let replace = |old| Action::Replace { place: a.clone(), expect, old };
        check(replace(Old::Trash), "give abababab the name d/a, and move what has it to the trash");
        check(replace(Old::Keep(b.clone())), "give abababab the name d/a, and move what has it to d/b");
        check(Action::SetMeta { place: a.clone(), expect }, "set time and executable bit of d/a");
        check(Action::Move { from: a.real.clone(), expect, place: b }, "move d/a to d/b");
        check(Action::Remove { real: a.real, expect }, "move d/a to the trash");
        check(Action::RemoveFolder { real: folder.real }, "remove the folder d");
    }
}
