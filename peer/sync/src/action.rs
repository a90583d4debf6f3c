//! What the machine is told and what it wants done: the words between it and the hands in the share folder.
//!
//! Nothing here decides. An action names what must be there for it to be done (`expect`, or a free name); hands that find
//! something else leave everything as it is and say so.

use std::time::Duration;

use potluck_common::projection::Place;
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
