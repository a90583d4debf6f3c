//! Carrying out one action of the machine: bytes from the trash, from our own folder or from owners, and then the hands.
//!
//! It decides nothing. What it finds otherwise than expected it leaves as it is and says so; what it has done is durable
//! when it says so, and in the library.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use potluck_common::projection::Place;
use potluck_common::register::{FileValue, Value};
use potluck_common::share_path::STATE_DIR;
use potluck_common::{ContentId, SharePath};

use super::action::{Action, Old, Outcome};
use super::apply::{ApplyError, Hands, Leaving, Supply};
use super::replace;
use super::trash::Trash;
use crate::download::job::Downloads;
use crate::download::partial::{GoesOn, Target};
use crate::download::place::is_no_space;
use crate::download::plan::Item;
use crate::share::folder::FileIdentity;
use crate::share::library::{Library, SharedFile};
use crate::share::state::PARTIAL_DIR;
use crate::verb::{Failed, FailureKind};

/// The first pause before a step that failed is tried again; it doubles up to the next.
const AGAIN_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// The longest pause for a content that nobody has at the moment: its owner may be back at any time.
const AGAIN_MAX_OWNER: Duration = Duration::from_secs(5);

/// What carries actions out. Cheap to clone.
#[derive(Clone)]
pub struct Carrier {
    /// Gets bytes.
    pub downloads: Downloads,
    /// Changes the share folder.
    pub hands: Arc<Hands>,
    /// What was taken out of it.
    pub trash: Arc<Trash>,
    /// Orders syncs: whoever waits for one is told of its own names only.
    pub syncing: Arc<tokio::sync::Mutex<()>>,
    /// What does not succeed, and how often it was tried.
    pub troubles: Arc<Mutex<HashMap<SharePath, Trouble>>>,
}

/// A step that does not succeed.
#[derive(Debug, Clone, Default)]
pub struct Trouble {
    /// Tries in a row.
    n_tries: u32,
    /// Why, in words.
    pub why: String,
}

/// Why an action was not done.
enum Undone {
    /// The share folder is not as it should be.
    Apply(ApplyError),
    /// The bytes could not be had.
    Fetch(Failed),
}

impl From<ApplyError> for Undone {
    fn from(error: ApplyError) -> Self {
        Self::Apply(error)
    }
}

impl From<io::Error> for Undone {
    fn from(error: io::Error) -> Self {
        Self::Apply(error.into())
    }
}

impl Carrier {
    /// Does it, and says what became of it.
    pub async fn carry_out(self, action: Action) -> (Action, Outcome) {
        let real = action.touches()[0].clone();
        let done = match self.act(&action).await {
            Ok(outcome) => self.sync().await.map(|()| outcome).map_err(Undone::from),
            undone => undone,
        };
        let outcome = match done {
            Ok(outcome) => {
                self.troubles.lock().unwrap_or_else(PoisonError::into_inner).remove(&real);
                tracing::debug!(action = action.to_string(), "done");
                outcome
            }
            Err(undone) => self.not_done(&real, undone),
        };
        (action, outcome)
    }

    async fn act(&self, action: &Action) -> Result<Outcome, Undone> {
        match action {
            Action::Place(place) => {
                let Value::File(value) = place.value else { return Ok(self.make_folder(place).await?) };
                Ok(Outcome::placed(self.place(&place.real, value).await?))
            }
            Action::Replace { place, expect, old } => self.replace(place, *expect, old).await,
            Action::SetMeta { place, expect } => {
                let Value::File(value) = place.value else { return Ok(Outcome::Changed) };
                let (real, expect) = (place.real.clone(), *expect);
                let identity = self.with_hands(move |hands| hands.set_meta(&real, &value, expect)).await?;
                self.share(&place.real, value.content_id, identity).await;
                Ok(Outcome::placed(identity))
            }
            Action::Move { from, expect, place } => {
                let Value::File(value) = place.value else { return Ok(Outcome::Changed) };
                let (old, real, expect) = (from.clone(), place.real.clone(), *expect);
                let identity = self.with_hands(move |hands| hands.move_file(&old, expect, &real)).await?;
                self.share(&place.real, value.content_id, identity).await;
                self.downloads.library.remove(from);
                Ok(Outcome::placed(identity))
            }
            Action::MakeFolder(place) => Ok(self.make_folder(place).await?),
            Action::Remove { real, expect } => {
                let (gone, expect, leaving) = (real.clone(), *expect, self.leaving(real, *expect));
                self.with_hands(move |hands| hands.remove(&gone, expect, leaving)).await?;
                self.downloads.library.remove(real);
                Ok(Outcome::DONE)
            }
            Action::RemoveFolder { real } => {
                let gone = real.clone();
                self.with_hands(move |hands| hands.remove_folder(&gone)).await?;
                Ok(Outcome::DONE)
            }
        }
    }

    async fn make_folder(&self, place: &Place) -> Result<Outcome, ApplyError> {
        let real = place.real.clone();
        self.with_hands(move |hands| hands.make_folder(&real)).await?;
        Ok(Outcome::DONE)
    }

    /// A content at a free name: out of the trash without moving a byte, or as any download.
    async fn place(&self, real: &SharePath, value: FileValue) -> Result<FileIdentity, Undone> {
        if let Some(identity) = self.take_back(real, value).await? {
            return Ok(identity);
        }
        let target = Target::Share(real.clone());
        match self.bring(real, &value, target, Some(value)).await {
            // It is in the library too.
            Ok(Some(identity)) => {
                self.has_come(real, &value);
                return Ok(identity);
            }
            Ok(None) => {}
            Err(failed) => {
                let is_taken = self.downloads.folder.is_taken(real);
                return Err(if is_taken { ApplyError::Taken.into() } else { Undone::Fetch(failed) });
            }
        }
        let Some(placed) = self.downloads.library.get(real) else { return Err(ApplyError::Changed.into()) };
        let (dressed, expect) = (real.clone(), placed.identity);
        let identity = self.with_hands(move |hands| hands.set_meta(&dressed, &value, expect)).await?;
        self.share(real, value.content_id, identity).await;
        self.has_come(real, &value);
        Ok(identity)
    }

    /// A file that was fetched has its name.
    fn has_come(&self, real: &SharePath, value: &FileValue) {
        let path = self.downloads.folder.path().join(real.as_str());
        self.downloads.completions.note(path, value.content_id, value.len);
    }

    /// The content from the trash, if it is there.
    async fn take_back(&self, real: &SharePath, value: FileValue) -> Result<Option<FileIdentity>, ApplyError> {
        for item in self.trash.find(value.content_id) {
            let place = real.clone();
            let placed = self.with_hands(move |hands| hands.place(Supply::Trashed(&item), &place, &value)).await;
            match placed {
                Ok(identity) => {
                    self.share(real, value.content_id, identity).await;
                    return Ok(Some(identity));
                }
                Err(ApplyError::Taken) => return Err(ApplyError::Taken),
                // That item is of no use; bytes can be had elsewhere.
                Err(error) => tracing::debug!(real = real.as_str(), %error, "not from the trash"),
            }
        }
        Ok(None)
    }

    async fn replace(&self, place: &Place, expect: FileIdentity, old: &Old) -> Result<Outcome, Undone> {
        let Value::File(value) = place.value else { return Ok(Outcome::Changed) };
        let before = self.leaving(&place.real, expect);
        let staged = format!("copy.{:016x}", fastrand::u64(..));
        let path: PathBuf = self.downloads.folder.path().join(STATE_DIR).join(PARTIAL_DIR).join(&staged);
        self.bring(&place.real, &value, Target::Elsewhere(path), None).await.map_err(Undone::Fetch)?;
        let (real, name, kept_at) = (
            place.real.clone(),
            staged.clone(),
            match old {
                Old::Trash => None,
                Old::Keep(kept) => Some(kept.real.clone()),
            },
        );
        let replaced = self.with_hands(move |hands| {
            let old = kept_at.as_ref().map_or(replace::Old::Trash(before), replace::Old::Keep);
            hands.replace(Supply::Staged(&name), &real, &value, expect, old)
        });
        let replaced = match replaced.await {
            Ok(replaced) => replaced,
            Err(error) => {
                let _also_gone = self.downloads.partials.dir().remove_file(&staged);
                return Err(error.into());
            }
        };
        self.share(&place.real, value.content_id, replaced.identity).await;
        self.has_come(&place.real, &value);
        if let (Old::Keep(kept), Some(identity), Some(content_id)) = (old, replaced.kept, before.content_id) {
            self.share(&kept.real, content_id, identity).await;
        }
        Ok(Outcome::Done { identity: Some(replaced.identity), kept: replaced.kept })
    }

    async fn bring(
        &self,
        real: &SharePath,
        value: &FileValue,
        target: Target,
        dress: Option<FileValue>,
    ) -> Result<Option<FileIdentity>, Failed> {
        let (content_id, len) = (value.content_id, value.len);
        // After a restart the machine says anew what is wanted: meanwhile others may have renamed or deleted it, and a file that
        // came to its old name by itself would be taken for the user's, and be everybody's again.
        let (name, goes_on) = (real.to_string(), GoesOn::WhenAsked);
        let item = Item { name, content_id, len, target, owners: None, dress, origin: None, goes_on };
        self.downloads.bring(item).await
    }

    fn leaving(&self, real: &SharePath, expect: FileIdentity) -> Leaving {
        Leaving { content_id: content_of(&self.downloads.library, real, expect), by: None }
    }

    /// A file of a known content stands there now: it need not be hashed.
    async fn share(&self, real: &SharePath, content_id: ContentId, identity: FileIdentity) {
        let cache = self.downloads.cache.clone();
        let known = tokio::task::spawn_blocking(move || cache.know_as(content_id, identity)).await;
        if matches!(known, Ok(Ok(true))) {
            self.downloads.library.insert(real.clone(), SharedFile { content_id, identity });
        }
    }

    async fn with_hands<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Hands) -> Result<T, ApplyError> + Send + 'static,
    ) -> Result<T, ApplyError> {
        let hands = self.hands.clone();
        tokio::task::spawn_blocking(move || work(&hands))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    /// Makes durable what was done so far. In turns: names that were given while a sync runs are part of the next one.
    async fn sync(&self) -> Result<(), ApplyError> {
        let _turn = self.syncing.lock().await;
        // Nothing of ours waits: somebody's sync was ours too, or the file came with its batch.
        if self.hands.is_synced() {
            return Ok(());
        }
        self.with_hands(|hands| Ok(hands.sync()?)).await
    }

    fn not_done(&self, real: &SharePath, undone: Undone) -> Outcome {
        let (why, longest) = match undone {
            Undone::Apply(ApplyError::Changed) => return Outcome::Changed,
            Undone::Apply(ApplyError::Taken) => {
                self.note_trouble(real, "something else stands there".into());
                return Outcome::Taken;
            }
            Undone::Apply(ApplyError::NotEmpty) => {
                self.note_trouble(real, "the folder is to go, and has something of its own in it".into());
                return Outcome::NotEmpty;
            }
            Undone::Apply(ApplyError::Io(error)) if is_no_space(&error) => ("the disk is full".into(), AGAIN_MAX_OWNER),
            Undone::Apply(ApplyError::Io(error)) => (error.to_string(), AGAIN_MAX),
            Undone::Fetch(failed) => match failed.kind {
                FailureKind::NotFound | FailureKind::Unreachable | FailureKind::NoSpace => {
                    (failed.message, AGAIN_MAX_OWNER)
                }
                _ => (failed.message, AGAIN_MAX),
            },
        };
        let n_tries = self.note_trouble(real, why.clone());
        let again_after = (AGAIN_MIN * 2u32.saturating_pow(n_tries.min(16))).min(longest);
        tracing::debug!(real = real.as_str(), why, ?again_after, "a step of sync failed");
        Outcome::Failed { again_after }
    }

    /// How often it was tried before.
    fn note_trouble(&self, real: &SharePath, why: String) -> u32 {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = troubles.entry(real.clone()).or_default();
        trouble.why = why;
        trouble.n_tries += 1;
        trouble.n_tries - 1
    }
}

/// What a file in this state holds, if the library knows. It may know only what stood there before: then saying that would
/// pass the bytes in the trash off as another content, and they would come back as it unverified.
fn content_of(library: &Library, real: &SharePath, state: FileIdentity) -> Option<ContentId> {
    library.get(real).filter(|file| file.identity == state).map(|file| file.content_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replaced twice in a row, faster than it was hashed: what left its name the second time was recorded, and shared at its
    /// conflict name, as the content that had stood there first.
    #[test]
    fn a_file_that_leaves_is_not_taken_for_the_one_before_it() {
        let library = Library::default();
        let (real, content_id) = ("a".parse::<SharePath>().unwrap(), ContentId::of(b"first"));
        let first = FileIdentity { inode: (1, 1), len: 5, mtime: (1, 0), ctime: (1, 0) };
        let second = FileIdentity { inode: (1, 2), ..first };
        assert_eq!(content_of(&library, &real, first), None);
        library.insert(real.clone(), SharedFile { content_id, identity: first });
        assert_eq!(content_of(&library, &real, first), Some(content_id));
        assert_eq!(content_of(&library, &real, second), None);
    }
}
