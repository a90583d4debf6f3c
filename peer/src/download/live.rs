//! Contents that are being fetched, as others see them: from its first verified chunk on, a leecher is an owner.
//!
//! Also the news of every content that somebody follows: which chunks we gained, and which we have begun to hand out. News are
//! hints for the choice of the next chunk; whoever misses some is told the whole state again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use potluck_common::protocol::{MAX_PROGRESS, Parts, Progress};
use potluck_common::tree::LengthProof;
use potluck_common::{ChunkIndex, ContentId, HaveSet};
use tokio::sync::broadcast;

use super::partial::PartialFile;

/// News that may wait for one follower; one that lags further is told the whole state again.
const MAX_NEWS: usize = 1024;

/// What happened to a content here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A chunk is verified and written.
    Gained(u32),
    /// A chunk has begun to go to somebody.
    Coming(u32),
    /// Every chunk is here.
    Complete,
}

/// A content of which we hold a part.
#[derive(Debug)]
pub struct LiveContent {
    /// Its bytes so far, and its map.
    pub partial: Arc<PartialFile>,
    /// What proves its length.
    pub proof: LengthProof,
    have: Mutex<HaveSet>,
}

impl LiveContent {
    /// With what is held already.
    pub fn new(partial: Arc<PartialFile>, proof: LengthProof, have: HaveSet) -> Self {
        Self { partial, proof, have: Mutex::new(have) }
    }

    /// What is held.
    pub fn have(&self) -> HaveSet {
        self.have.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether all these chunks are held.
    pub fn holds(&self, mut chunks: impl Iterator<Item = ChunkIndex>) -> bool {
        let have = self.have.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.all(|chunk| have.contains(chunk))
    }
}

/// All contents that are being fetched, and the news of those that somebody follows.
#[derive(Debug, Default)]
pub struct Live {
    contents: Mutex<HashMap<ContentId, Arc<LiveContent>>>,
    followed: Mutex<HashMap<ContentId, broadcast::Sender<News>>>,
}

impl Live {
    /// A content is being fetched from now on.
    pub fn enter(&self, content: Arc<LiveContent>) {
        let id = content.partial.map().content_id();
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).insert(id, content);
    }

    /// It is not any more: it is complete, or given up.
    pub fn leave(&self, id: ContentId) {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// A content that is being fetched.
    pub fn get(&self, id: ContentId) -> Option<Arc<LiveContent>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// How far it is with the contents that are being fetched, as trackers are told; a bounded number of them.
    pub fn progress(&self) -> Vec<Progress> {
        let mut contents: Vec<_> = self
            .contents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(id, content)| (*id, content.clone()))
            .collect();
        contents.sort_by_key(|(id, _)| *id);
        contents.truncate(MAX_PROGRESS);
        let parts = |content: &LiveContent| Parts::of(&content.have(), content.partial.map().geometry());
        contents
            .iter()
            .map(|(content_id, content)| Progress { content_id: *content_id, parts: parts(content) })
            .collect()
    }

    /// A chunk is verified and written, and may be handed on.
    pub fn on_gained(&self, id: ContentId, chunk: ChunkIndex) {
        if let Some(content) = self.get(id) {
            content.have.lock().unwrap_or_else(PoisonError::into_inner).insert(chunk);
            self.tell(id, News::Gained(chunk.get()));
        }
    }

    /// A chunk is not there after all.
    pub fn on_lost(&self, id: ContentId, chunk: ChunkIndex) {
        if let Some(content) = self.get(id) {
            content.have.lock().unwrap_or_else(PoisonError::into_inner).remove(chunk);
        }
    }

    /// Follows the news of a content.
    pub fn follow(&self, id: ContentId) -> broadcast::Receiver<News> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, sender| sender.receiver_count() > 0);
        followed.entry(id).or_insert_with(|| broadcast::Sender::new(MAX_NEWS)).subscribe()
    }

    /// Tells news to whoever follows the content.
    pub fn tell(&self, id: ContentId, news: News) {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = followed.get(&id) {
            let _nobody_follows = sender.send(news);
        }
    }
}
