//! The disk table: what we last put or saw at each real path.
//!
//! A change in the folder is told by comparing with it, and so is what is left to do. It knows nothing of what should
//! be there, but for *intents*: what actions under way are putting somewhere that the index has given up meanwhile. Should we
//! die before their outcome is stored, the next start knows by them that what stands there is no edit of the user's.
//!
//! Invariant: each row's content and origin can be found from either side; a row changed since the last batch is in
//! `unsaved`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::LazyLock;

use potluck_common::register::{Dot, FileValue, Value};
use potluck_common::{ContentId, SharePath};

use super::file_identity::FileIdentity;

/// What stands at a real path, as far as we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisk {
    /// A file in this state.
    File {
        /// What was put there or seen.
        value: FileValue,
        /// Its state on disk.
        identity: FileIdentity,
    },
    /// A folder.
    Folder,
}

impl OnDisk {
    /// Whether both are folders, or files with the same content.
    pub fn has_same_bytes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder, Self::Folder) => true,
            (Self::File { value, .. }, Self::File { value: other, .. }) => value.content_id == other.content_id,
            _ => false,
        }
    }

    /// As a version's value.
    pub const fn value(&self) -> Value {
        match self {
            Self::File { value, .. } => Value::File(*value),
            Self::Folder => Value::Folder,
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What stands there.
    pub on_disk: OnDisk,
    /// The path whose register it belongs to, if that is another one: then this is a conflict copy.
    pub copy_of: Option<SharePath>,
    /// The versions of that register that it stood for when it was put or seen.
    pub dots: Box<[Dot]>,
}

impl Row {
    /// Content and identity, if it is a file.
    pub const fn file(&self) -> Option<(&FileValue, &FileIdentity)> {
        match &self.on_disk {
            OnDisk::File { value, identity } => Some((value, identity)),
            OnDisk::Folder => None,
        }
    }

    /// Whether it is a file with this content.
    pub fn has_content(&self, content_id: &ContentId) -> bool {
        self.file().is_some_and(|(value, _)| value.content_id == *content_id)
    }

    /// The path whose register it belongs to.
    pub fn origin<'a>(&'a self, real: &'a SharePath) -> &'a SharePath {
        self.copy_of.as_ref().unwrap_or(real)
    }
}

/// What an action is putting at a real path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// What is to stand there.
    pub value: Value,
    /// As in [`Row`].
    pub copy_of: Option<SharePath>,
    /// As in [`Row`].
    pub dots: Box<[Dot]>,
}

impl Intent {
    /// The path whose register wanted it.
    pub fn origin<'a>(&'a self, real: &'a SharePath) -> &'a SharePath {
        self.copy_of.as_ref().unwrap_or(real)
    }

    /// Whether it is to be a file with this content.
    pub fn has_content(&self, content_id: &ContentId) -> bool {
        self.value.file().is_some_and(|file| file.content_id == *content_id)
    }
}

/// All that is kept of a real path: a row, an intent, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAt {
    /// What stands there.
    pub row: Option<Row>,
    /// What may have been put there.
    pub intent: Option<Intent>,
}

impl From<Row> for KeptAt {
    fn from(row: Row) -> Self {
        Self { row: Some(row), intent: None }
    }
}

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct DiskTable {
    rows: BTreeMap<SharePath, Row>,
    intents: BTreeMap<SharePath, Intent>,
    holders: BTreeSet<(ContentId, SharePath)>,
    copies: BTreeSet<(SharePath, SharePath)>,
    unsaved: BTreeSet<SharePath>,
    n_files: usize,
}

impl DiskTable {
    /// From what was stored.
    pub fn restored(rows: impl IntoIterator<Item = (SharePath, KeptAt)>) -> Self {
        let mut table = Self::default();
        for (real, KeptAt { row, intent }) in rows {
            if let Some(intent) = intent {
                table.intents.insert(real.clone(), intent);
            }
            if let Some(row) = row {
                table.put(real, row);
            }
        }
        table.unsaved.clear();
        table
    }

    /// What stands there.
    pub fn get(&self, real: &SharePath) -> Option<&Row> {
        self.rows.get(real)
    }

    /// All rows by real path.
    pub fn iter(&self) -> impl Iterator<Item = (&SharePath, &Row)> {
        self.rows.iter()
    }

    /// Number of files.
    pub const fn n_files(&self) -> usize {
        self.n_files
    }

    /// Notes what stands there now.
    pub fn put(&mut self, real: SharePath, row: Row) {
        self.take(&real);
        if let Some((value, _)) = row.file() {
            self.holders.insert((value.content_id, real.clone()));
            self.n_files += 1;
        }
        if let Some(origin) = &row.copy_of {
            self.copies.insert((origin.clone(), real.clone()));
        }
        self.unsaved.insert(real.clone());
        self.rows.insert(real, row);
    }

    /// Notes that nothing of ours stands there any more.
    pub fn take(&mut self, real: &SharePath) -> Option<Row> {
        let row = self.rows.remove(real)?;
        if let Some((value, _)) = row.file() {
            self.holders.remove(&(value.content_id, real.clone()));
            self.n_files -= 1;
        }
        if let Some(origin) = &row.copy_of {
            self.copies.remove(&(origin.clone(), real.clone()));
        }
        self.unsaved.insert(real.clone());
        Some(row)
    }

    /// What an action is putting there that the index has given up.
    pub fn intent(&self, real: &SharePath) -> Option<&Intent> {
        self.intents.get(real)
    }

    /// All of these.
    pub fn intents(&self) -> impl Iterator<Item = (&SharePath, &Intent)> {
        self.intents.iter()
    }

    /// Notes what an action is putting there.
    pub fn intend(&mut self, real: SharePath, intent: Intent) {
        self.unsaved.insert(real.clone());
        self.intents.insert(real, intent);
    }

    /// No action is putting anything there, and what stands there is known.
    pub fn forget_intent(&mut self, real: &SharePath) {
        if self.intents.remove(real).is_some() {
            self.unsaved.insert(real.clone());
        }
    }

    /// All that is to be kept of a real path.
    pub fn kept(&self, real: &SharePath) -> Option<KeptAt> {
        let kept = KeptAt { row: self.rows.get(real).cloned(), intent: self.intents.get(real).cloned() };
        (kept.row.is_some() || kept.intent.is_some()).then_some(kept)
    }

    /// Rows below a path, in order.
    pub fn below<'a>(&'a self, real: &SharePath) -> impl Iterator<Item = (&'a SharePath, &'a Row)> + use<'a> {
        let below = format!("{real}/");
        self.rows
            .range::<str, _>((Bound::Excluded(below.as_str()), Bound::Unbounded))
            .take_while(move |(path, _)| path.as_str().starts_with(&below))
    }

    /// Where a content stands.
    pub fn holders(&self, content_id: &ContentId) -> impl Iterator<Item = &SharePath> {
        let content_id = *content_id;
        self.holders
            .range((content_id, LEAST.clone())..)
            .take_while(move |(id, _)| *id == content_id)
            .map(|(_, real)| real)
    }

    /// The conflict copies of a path that stand in the folder.
    pub fn copies(&self, origin: &SharePath) -> impl Iterator<Item = &SharePath> {
        let of = origin.clone();
        self.copies
            .range((origin.clone(), LEAST.clone())..)
            .take_while(move |(origin, _)| *origin == of)
            .map(|(_, real)| real)
    }

    /// All conflict copies: of what, and where.
    pub fn all_copies(&self) -> impl Iterator<Item = (&SharePath, &SharePath)> {
        self.copies.iter().map(|(origin, real)| (origin, real))
    }

    /// The paths whose rows have changed since this was last asked.
    pub fn take_unsaved(&mut self) -> BTreeSet<SharePath> {
        std::mem::take(&mut self.unsaved)
    }

    /// These could not be stored after all.
    pub fn still_unsaved(&mut self, reals: BTreeSet<SharePath>) {
        self.unsaved.extend(reals);
    }
}

/// The path before all others: control characters are refused, so nothing begins with less than a blank.
static LEAST: LazyLock<SharePath> = LazyLock::new(|| " ".parse().expect("a blank is a share path"));
