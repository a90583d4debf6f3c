//! An owner that a test makes misbehave: it is listed at the real tracker by a correctly signed announce, serves on a real
//! socket, and answers each question as the test's closure says.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{Response, StatusCode, header};
use futures::StreamExt;
use http_body_util::BodyExt;
use potluck_common::chunk::{Geometry, MIN_CHUNK_LEN};
use potluck_common::identity::{Identity, SIGNATURE_HEADER};
use potluck_common::protocol::{
    Activity, Announce, AnnounceEvent, Entry, PROTOCOL_VERSION, PartialEntry, Rates, Sifted,
};
use potluck_common::tree::{LengthProof, chunk_value};
use potluck_common::{ChunkMap, ContentId, PeerId};
use potluck_peer::wire::bundle::parse_ids;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::Tracker;

/// The length of a chunk in all contents of these tests.
pub(crate) const CHUNK: usize = MIN_CHUNK_LEN as usize;

/// A file as its honest owners have it.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) path: String,
    pub(crate) id: ContentId,
    pub(crate) data: Bytes,
    /// The chunk map as sent on the wire.
    pub(crate) map: Vec<u8>,
}

/// What an owner is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Map,
    /// The have stream.
    Have,
    Whole,
    Range(Range<usize>),
    /// Several contents in one answer.
    Bundle(Vec<ContentId>),
}

impl Content {
    pub(crate) fn new(path: &str, data: Vec<u8>) -> Self {
        let geometry = Geometry::new(data.len() as u64).unwrap();
        let values = geometry.indices().map(|chunk| {
            let bytes = geometry.bytes_of(chunk);
            chunk_value(geometry, chunk, &data[bytes.start as usize..bytes.end as usize])
        });
        let map = ChunkMap::from_values(geometry, values.collect());
        Self { path: path.into(), id: map.content_id(), map: map.as_wire().to_vec(), data: data.into() }
    }

    /// The right answer.
    pub(crate) fn honest(&self, ask: &Ask) -> Response<Body> {
        match ask {
            Ask::Map => map_answer(self, self.data.len() as u64, self.map.clone()),
            Ask::Have => answer(200).body("{\"complete\":true}\n".into()).unwrap(),
            Ask::Whole => answer(200).body(self.data.clone().into()).unwrap(),
            Ask::Bundle(_) => bundle_answer(&[(self.id, &self.data)]),
            Ask::Range(range) => range_answer(self, range.clone(), self.data.slice(range.clone())),
        }
    }

    /// The right answer to everything but ranges and the whole, whose bytes are changed.
    pub(crate) fn with_bytes(&self, ask: &Ask, change: impl Fn(usize, &mut [u8])) -> Response<Body> {
        let range = match ask {
            Ask::Map | Ask::Have => return self.honest(ask),
            Ask::Whole | Ask::Bundle(_) => 0..self.data.len(),
            Ask::Range(range) => range.clone(),
        };
        let mut bytes = self.data[range.clone()].to_vec();
        change(range.start, &mut bytes);
        match ask {
            Ask::Whole => answer(200).body(bytes.into()).unwrap(),
            Ask::Bundle(_) => bundle_answer(&[(self.id, &bytes)]),
            _ => range_answer(self, range, bytes),
        }
    }
}

pub(crate) fn answer(status: u16) -> axum::http::response::Builder {
    Response::builder().status(status).header(header::CONTENT_TYPE, "application/octet-stream")
}

/// An answer without a body.
pub(crate) fn bare(status: u16) -> Response<Body> {
    answer(status).body(Body::empty()).unwrap()
}

/// A chunk map with the length it is said to have been made with, and the true proof of the true length.
pub(crate) fn map_answer(content: &Content, len: u64, map: Vec<u8>) -> Response<Body> {
    let mut answer = answer(200).header("potluck-content-len", len.to_string());
    let geometry = Geometry::new(content.data.len() as u64).unwrap();
    if geometry.n_chunks() > 1 {
        let last = usize::try_from(geometry.bytes_of(geometry.last()).start).unwrap();
        let proof = LengthProof::of(geometry, &content.data[last..]);
        answer = answer.header("potluck-length-proof", hex::encode(proof.as_wire()));
    }
    answer.body(map.into()).unwrap()
}

/// A bundle of these parts, whether or not they are what their ids say.
pub(crate) fn bundle_answer(parts: &[(ContentId, &[u8])]) -> Response<Body> {
    let parts =
        parts.iter().map(|(id, bytes)| [id.as_bytes(), &(bytes.len() as u32).to_be_bytes()[..], bytes].concat());
    answer(200).body(parts.collect::<Vec<_>>().concat().into()).unwrap()
}

/// 206 for that range with any body.
pub(crate) fn range_answer(content: &Content, range: Range<usize>, body: impl Into<Body>) -> Response<Body> {
    let content_range = format!("bytes {}-{}/{}", range.start, range.end - 1, content.data.len());
    answer(206).header(header::CONTENT_RANGE, content_range).body(body.into()).unwrap()
}

/// A body that gives some bytes and then breaks the connection.
pub(crate) fn cut(bytes: Bytes) -> Body {
    let pieces = [Ok(bytes), Err(std::io::Error::other("cut on purpose"))];
    // A pause lets the bytes out before the connection is gone.
    let pieces = futures::stream::iter(pieces).then(|piece| async {
        if piece.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        piece
    });
    Body::from_stream(pieces)
}

/// These bytes a few at a time, so that only what goes out is counted.
pub(crate) fn in_pieces(bytes: &Bytes) -> Body {
    let pieces: Vec<_> = bytes.chunks(64 << 10).map(|piece| Ok::<_, std::io::Error>(bytes.slice_ref(piece))).collect();
    Body::from_stream(futures::stream::iter(pieces))
}

/// A body without an end, at full speed.
pub(crate) fn endless() -> Body {
    Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 64 << 10]))))
}

/// These bytes, and then silence on an open connection.
pub(crate) fn then_silence(bytes: Bytes) -> Body {
    Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(bytes)]).chain(futures::stream::pending()))
}

/// Right bytes, one at a time.
pub(crate) fn trickle(bytes: Bytes, every: Duration) -> Body {
    let bytes = futures::stream::iter(0..bytes.len()).then(move |at| {
        let byte = bytes.slice(at..at + 1);
        async move {
            tokio::time::sleep(every).await;
            Ok::<_, std::io::Error>(byte)
        }
    });
    Body::from_stream(bytes)
}

/// How it answers.
type Manners = dyn Fn(&Content, &Ask) -> Response<Body> + Send + Sync;

struct Inner {
    content: Content,
    manners: Box<Manners>,
    asked: Mutex<Vec<Ask>>,
    n_sent: AtomicU64,
}

/// The misbehaving owner of one content.
pub(crate) struct HostileOwner {
    pub(crate) name: String,
    pub(crate) base_url: String,
    pub(crate) identity: Identity,
    inner: Arc<Inner>,
    _ends: DropGuard,
}

impl HostileOwner {
    /// Serves and is listed with the content's true length.
    pub(crate) async fn start(
        tracker: &Tracker,
        name: &str,
        content: &Content,
        manners: impl Fn(&Content, &Ask) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let len = content.data.len() as u64;
        let owner = Self::serve(name, content, manners).await;
        owner.announce(tracker, len).await;
        owner
    }

    /// Serves, and is not listed yet.
    pub(crate) async fn serve(
        name: &str,
        content: &Content,
        manners: impl Fn(&Content, &Ask) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            content: content.clone(),
            manners: Box::new(manners),
            asked: Mutex::default(),
            n_sent: AtomicU64::new(0),
        });
        let state = inner.clone();
        let router = Router::new().fallback(move |request: Request| {
            let state = state.clone();
            async move { state.respond(&request) }
        });
        let shutdown = CancellationToken::new();
        let ending = shutdown.clone();
        tokio::spawn(async move { ending.run_until_cancelled(axum::serve(listener, router).into_future()).await });
        let identity = Identity::from_secret(blake3::hash(base_url.as_bytes()).as_bytes());
        Self { name: name.into(), base_url, identity, inner, _ends: shutdown.drop_guard() }
    }

    /// Lists it as an owner of its content with that length.
    pub(crate) async fn announce(&self, tracker: &Tracker, len: u64) {
        let Content { path, id, .. } = &self.inner.content;
        let entry = Entry { path: path.parse().unwrap(), content_id: *id, len };
        self.send(tracker, vec![entry], vec![]).await;
    }

    /// Lists it as an owner of all these.
    pub(crate) async fn announce_all(&self, tracker: &Tracker, contents: &[Content]) {
        let entry = |content: &Content| Entry {
            path: content.path.parse().unwrap(),
            content_id: content.id,
            len: content.data.len() as u64,
        };
        self.send(tracker, contents.iter().map(entry).collect(), vec![]).await;
    }

    /// Lists it as one that holds a part of its content.
    pub(crate) async fn announce_partial(&self, tracker: &Tracker, n_chunks: u32) {
        let Content { id, data, .. } = &self.inner.content;
        let entry = PartialEntry { content_id: *id, len: data.len() as u64, n_chunks };
        self.send(tracker, vec![], vec![entry]).await;
    }

    async fn send(&self, tracker: &Tracker, added: Vec<Entry>, partial: Vec<PartialEntry>) {
        let announce = Announce {
            protocol: PROTOCOL_VERSION,
            event: AnnounceEvent::Started,
            peer_id: self.peer_id(),
            public_key: self.identity.public_key(),
            name: self.name.clone(),
            port: self.base_url.rsplit_once(':').unwrap().1.parse().unwrap(),
            advertise: None,
            generation: 1,
            instance: 0,
            seq: 1,
            base: 0,
            revision: 1,
            added,
            removed: vec![],
            partial,
            sync: None,
            index: Sifted::default(),
            rates: Rates::default(),
            activity: Activity::default(),
        };
        let body = serde_json::to_vec(&announce).unwrap();
        let request = tracker
            .http
            .post(format!("{}/v1/announce", tracker.url))
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE_HEADER, self.identity.sign(&body));
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// Everything it was asked for, in order.
    pub(crate) fn asked(&self) -> Vec<Ask> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// How many ranges it was asked for.
    pub(crate) fn n_ranges(&self) -> usize {
        self.asked().iter().filter(|ask| matches!(ask, Ask::Range(_))).count()
    }

    /// Bytes of bodies that went out.
    pub(crate) fn n_sent(&self) -> u64 {
        self.inner.n_sent.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn respond(self: Arc<Self>, request: &Request) -> Response<Body> {
        let content = format!("/v1/content/{}", self.content.id);
        let range = request.headers().get(header::RANGE).map(|value| parse(value.to_str().unwrap()));
        let uri = request.uri();
        let ask = match uri.path().strip_prefix(&content) {
            Some("/chunks") => Ask::Map,
            Some("/have") => Ask::Have,
            Some("") => range.map_or(Ask::Whole, Ask::Range),
            None if uri.path() == "/v1/contents" => {
                Ask::Bundle(parse_ids(uri.query().unwrap().strip_prefix("ids=").unwrap()).unwrap())
            }
            _ => return bare(404),
        };
        self.asked.lock().unwrap().push(ask.clone());
        let response = (self.manners)(&self.content, &ask);
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let len = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                self.n_sent.fetch_add(len, Ordering::Relaxed);
                frame
            }))
        })
    }
}

/// Peers ask for `bytes=FIRST-LAST` and nothing else.
fn parse(range: &str) -> Range<usize> {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
}
