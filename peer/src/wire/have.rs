//! The have stream: what a peer holds of a content, and then its news, as lines of JSON.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use potluck_common::ContentId;
use potluck_common::protocol::HaveLine;
use tokio::sync::broadcast::{Receiver, error::RecvError, error::TryRecvError};
use tokio::time::Instant;

use crate::download::live::{Live, News};
use crate::share::library::Library;

/// News are gathered for so long…
const GATHER: Duration = Duration::from_millis(4);
/// …and while there are always some, for so long since the last line: in a swarm everybody hears everybody, and there the
/// lines cost more than the bytes. Neighbours have enough else to ask for meanwhile: in simulated swarms even ten times
/// this costs less than a hundredth of the time.
const BETWEEN_LINES: Duration = Duration::from_millis(50);
/// A line is sent at least this often, so that the other side knows that we are there.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What a stream of one content is made from.
pub struct HaveStream {
    /// Which content.
    pub id: ContentId,
    /// Contents being fetched, and the news.
    pub live: Arc<Live>,
    /// Contents that are complete.
    pub library: Arc<Library>,
}

impl HaveStream {
    /// The lines; `None` if nothing of the content is here. It ends when that becomes so.
    pub fn lines(self) -> Option<impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static> {
        // Followed first: what is gained between the two is told twice and not never.
        let news = self.live.follow(self.id);
        let first = self.state()?;
        Some(futures::stream::unfold(
            (self, news, Some(first), None),
            |(stream, mut news, first, told_at)| async move {
                let line = match first {
                    Some(first) => first,
                    None => stream.next(&mut news, told_at).await?,
                };
                let mut text = serde_json::to_vec(&line).expect("numbers and hexadecimal text");
                text.push(b'\n');
                Some((Ok(Bytes::from(text)), (stream, news, None, Some(Instant::now()))))
            },
        ))
    }

    fn state(&self) -> Option<HaveLine> {
        if self.library.holds(self.id) {
            return Some(HaveLine { complete: true, ..HaveLine::default() });
        }
        let have = self.live.get(self.id)?.have();
        Some(HaveLine { have: Some((&have).into()), ..HaveLine::default() })
    }

    async fn next(&self, news: &mut Receiver<News>, told_at: Option<Instant>) -> Option<HaveLine> {
        let mut line = HaveLine::default();
        match tokio::time::timeout(KEEP_ALIVE, news.recv()).await {
            Err(_) => return self.state().map(|_| line),
            Ok(Err(RecvError::Lagged(_))) => return self.state(),
            Ok(Err(RecvError::Closed)) => return None,
            Ok(Ok(first)) => add(&mut line, first),
        }
        let next_line = told_at.map(|at| at + BETWEEN_LINES);
        tokio::time::sleep_until(next_line.into_iter().fold(Instant::now() + GATHER, Instant::max)).await;
        loop {
            match news.try_recv() {
                Ok(more) => add(&mut line, more),
                Err(TryRecvError::Empty) => return Some(line),
                Err(TryRecvError::Lagged(_)) => return self.state(),
                Err(TryRecvError::Closed) => return None,
            }
        }
    }
}

fn add(line: &mut HaveLine, news: News) {
    match news {
        News::Gained(chunk) => line.gained.push(chunk),
        News::Coming(chunk) => line.coming.push(chunk),
        News::Complete => line.complete = true,
    }
}
