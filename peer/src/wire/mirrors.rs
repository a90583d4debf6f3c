//! Who else holds all of a content or of a folder, for clients that are no peers.
//!
//! Invariant: one question to a tracker for each of them in ten seconds, however many requests come, and none waits for it
//! longer than half a second. Peers know owners by themselves and never cause one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use potluck_common::address::{Reach, means_the_same_at};
use potluck_common::net::client::parse_base_url;
use potluck_common::protocol::Owner;
use potluck_common::{ContentId, PeerId, SharePath, percent};
use reqwest::Url;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::tracker_client::{AskError, TrackerClient};
use super::trackers::Trackers;

/// For so long an answer is given again; also that there was none.
const FRESH: Duration = Duration::from_secs(10);
/// For an answer of the trackers: what a person does not notice.
const PATIENCE: Duration = Duration::from_millis(500);
/// Owners asked for.
const MAX_OWNERS: usize = 50;
/// Contents and folders whose owners are remembered.
const MAX_KNOWN: usize = 1_024;

/// A handle on what is known. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mirrors(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    trackers: Trackers,
    me: PeerId,
    known: Mutex<BTreeMap<Subject, Arc<Answer>>>,
}

/// What is owned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Content(ContentId),
    /// With the number of files and of bytes that we have below it.
    Folder(SharePath, u64, u64),
}

#[derive(Debug)]
struct Answer {
    at: Instant,
    owners: OnceCell<Vec<Owner>>,
}

impl Mirrors {
    /// Asks these trackers, the first that answers; `me` is left out.
    pub fn new(trackers: Trackers, me: PeerId) -> Self {
        Self(Arc::new(Inner { trackers, me, known: Mutex::default() }))
    }

    /// URLs of the content at other owners, in random order, that mean something to a client at `from`.
    pub async fn urls(&self, id: ContentId, from: IpAddr) -> Vec<String> {
        let bases = self.bases(Subject::Content(id), from).await;
        bases.into_iter().map(|base| format!("{base}v1/content/{id}")).collect()
    }

    /// URLs of the folder that this folder lies in, with a slash at the end, at other owners of the same `n_files` files of
    /// `n_bytes` bytes in all.
    pub async fn folder_urls(&self, path: &SharePath, n_files: u64, n_bytes: u64, from: IpAddr) -> Vec<String> {
        let bases = self.bases(Subject::Folder(path.clone(), n_files, n_bytes), from).await;
        bases.into_iter().map(|base| format!("{}{}", base.as_str().trim_end_matches('/'), parent_url(path))).collect()
    }

    async fn bases(&self, subject: Subject, from: IpAddr) -> Vec<Url> {
        let answer = self.answer(&subject);
        let owners = answer.owners.get_or_init(|| self.ask(&subject)).await;
        let bases = owners.iter().filter_map(|owner| parse_base_url(&owner.base_url, Reach::of(from)).ok());
        bases.filter(|base| base.host_str().is_some_and(|host| means_the_same_at(host, from))).collect()
    }

    fn answer(&self, subject: &Subject) -> Arc<Answer> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |answer: &Answer| answer.at.elapsed() < FRESH;
        if let Some(answer) = known.get(subject).filter(|answer| is_fresh(answer)) {
            return answer.clone();
        }
        if known.len() >= MAX_KNOWN {
            known.retain(|_, answer| is_fresh(answer));
        }
        if known.len() >= MAX_KNOWN {
            known.pop_first();
        }
        let answer = Arc::new(Answer { at: Instant::now(), owners: OnceCell::new() });
        known.insert(subject.clone(), answer.clone());
        answer
    }

    async fn ask(&self, subject: &Subject) -> Vec<Owner> {
        let asked = async {
            let members = self.0.trackers.list();
            for tracker in members.iter().filter(|member| !member.is_silent()).map(|member| &member.tracker) {
                match self.ask_one(tracker, subject).await {
                    Ok(owners) => return owners,
                    Err(error) => tracing::debug!(tracker = %tracker.base(), %error, "no owners for a client"),
                }
            }
            Vec::new()
        };
        let mut owners = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_default();
        owners.retain(|owner| owner.complete && owner.peer_id != self.0.me);
        owners
    }

    async fn ask_one(&self, tracker: &TrackerClient, subject: &Subject) -> Result<Vec<Owner>, AskError> {
        match subject {
            Subject::Content(id) => Ok(tracker.content(*id, MAX_OWNERS).await?.owners),
            Subject::Folder(path, n_files, n_bytes) => {
                let info = tracker.folder(path).await?;
                let is_ours = info.n_files == *n_files && info.n_bytes == *n_bytes;
                Ok(if is_ours { info.owners } else { Vec::new() })
            }
        }
    }
}

/// The path, at any owner, of what a folder lies in.
pub fn parent_url(folder: &SharePath) -> String {
    match folder.parent() {
        Some(parent) => format!("/f/{}/", percent::path(parent.as_str())),
        None => "/f/".into(),
    }
}
