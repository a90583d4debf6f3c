//! `/f/{path}`: to whom clients that are no peers are sent.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode, header};
use potluck_common::ContentId;
use potluck_common::protocol::{AnnounceEvent, PartialEntry};

use crate::support::{Answer, TestPeer, TestTracker, get};

#[track_caller]
fn location(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "{answer:?}");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    answer.headers[header::LOCATION].to_str().unwrap()
}

#[tokio::test]
async fn names_of_every_kind() {
    let tracker = TestTracker::new().await;
    let names = ["a/b c%20.txt", "brûlée #1?.md", "x@y", "x.meta4", "x@12345678"];
    tracker.announce(TestPeer::new(1).add(&names)).await;
    let check = async |uri: &str, name: &str, rest: &str| {
        let id = ContentId::of(name.as_bytes());
        let want = format!("http://10.0.0.7:7701/v1/content/{id}{rest}");
        assert_eq!(location(&tracker.get(uri).await), want, "{uri}");
    };
    check("/f/a/b%20c%2520.txt", names[0], "?name=b%20c%2520.txt").await;
    check("/f/a%2Fb%20c%2520.txt", names[0], "?name=b%20c%2520.txt").await;
    check("/f/br%C3%BBl%C3%A9e%20%231%3F.md", names[1], "?name=br%C3%BBl%C3%A9e%20%231%3F.md").await;
    check("/f/x@y", names[2], "?name=x%40y").await;
    check("/f/x.meta4", names[3], "?name=x.meta4").await;
    check("/f/x.meta4.meta4", names[3], "/metalink?name=x.meta4").await;
    check("/f/x@12345678", names[4], "?name=x%4012345678").await;
    check("/f/x@y.meta4", names[2], "/metalink?name=x%40y").await;
    check("/f/x@y.torrent", names[2], "/torrent?name=x%40y").await;
    for unknown in ["/f/nope", "/f/a", "/f/a//b", "/f/%ff", "/f/x@1234", "/f/nope.meta4", "/f/..%2fx", "/f/"] {
        let answer = tracker.get(unknown).await;
        assert_eq!((answer.status, answer.slug()), (StatusCode::NOT_FOUND, "not-found".into()), "{unknown}");
    }
    let mut head = get("/f/x@y");
    *head.method_mut() = Method::HEAD;
    assert!(location(&tracker.send(head).await).contains("/v1/content/"));
    let mut post = get("/f/x@y");
    *post.method_mut() = Method::POST;
    assert_eq!(tracker.send(post).await.slug(), "method-not-allowed");
}

#[tokio::test]
async fn one_of_several_contents() {
    let tracker = TestTracker::new().await;
    let contents = [b"one", b"two"].map(|bytes| ContentId::of(bytes));
    for (n, id) in (1..).zip(contents) {
        let mut peer = TestPeer::new(n);
        peer.add_body(&["notes"]);
        peer.message.added[0].content_id = id;
        tracker.announce(peer.request(peer.body())).await;
    }
    let answer = tracker.get("/f/notes").await;
    assert_eq!((answer.status, answer.slug()), (StatusCode::CONFLICT, "ambiguous".into()));
    for id in contents {
        assert!(answer.json["detail"].as_str().unwrap().contains(&id.to_string()), "{answer:?}");
        let digits = &id.to_string()[..8];
        for uri in [
            format!("/f/notes?content={id}"),
            format!("/f/notes?content={digits}"),
            format!("/f/notes@{}", digits.to_uppercase()),
            format!("/f/notes.meta4?content={digits}"),
        ] {
            assert!(location(&tracker.get(&uri).await).contains(&id.to_string()), "{uri}");
        }
    }
    let answer = tracker.get("/f/notes?content=00000000").await;
    assert_eq!((answer.status, answer.slug()), (StatusCode::NOT_FOUND, "not-found".into()));
    for bad in ["/f/notes?content=", "/f/notes?content=12", "/f/notes?content=xyzxyz", "/f/notes?content=a&content=b"] {
        let answer = tracker.get(bad).await;
        assert_eq!((answer.status, answer.slug()), (StatusCode::BAD_REQUEST, "bad-query".into()), "{bad}");
    }
}

/// Nobody is sent to a loopback address of another machine, to a partial owner, or to one that has left.
#[tokio::test]
async fn only_owners_that_can_be_used() {
    let tracker = TestTracker::new().await;
    let (mut near, mut far) = (TestPeer::new(1), TestPeer::new(2));
    assert_eq!(tracker.send_from("127.0.0.1", near.add(&["x"])).await.status, StatusCode::OK);
    assert!(location(&tracker.send_from("127.0.0.1", get("/f/x")).await).starts_with("http://127.0.0.1:7701/"));
    let answer = tracker.get("/f/x").await;
    assert_eq!((answer.status, answer.slug()), (StatusCode::SERVICE_UNAVAILABLE, "no-owner".into()));
    assert!(answer.json["detail"].as_str().unwrap().contains("loopback"), "{answer:?}");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));

    tracker.announce(far.add(&["x"])).await;
    let mut partial = TestPeer::new(3);
    partial.add_body(&["other"]);
    partial.message.partial = vec![PartialEntry { content_id: ContentId::of(b"x"), len: 1, n_chunks: 1 }];
    assert_eq!(tracker.send_from("10.0.0.99", partial.request(partial.body())).await.status, StatusCode::OK);
    for _ in 0..20 {
        assert!(location(&tracker.get("/f/x").await).starts_with("http://10.0.0.7:7701/"));
    }
    tracker.announce(far.say(AnnounceEvent::Stopped)).await;
    assert_eq!(tracker.get("/f/x").await.slug(), "no-owner");
    let stopped = near.say(AnnounceEvent::Stopped);
    assert_eq!(tracker.send_from("127.0.0.1", stopped).await.status, StatusCode::OK);
    assert_eq!(tracker.get("/f/x").await.slug(), "not-found", "its last complete owner is gone");
}

/// A room full of people is spread over the owners, and busy ones are spared.
#[tokio::test]
async fn the_least_busy_owner() {
    let tracker = TestTracker::new().await;
    for n in 1..=5 {
        let mut peer = TestPeer::new(n);
        peer.message.rates.up = if n == 5 { 1 << 30 } else { 0 };
        peer.message.port = 8000 + u16::try_from(n).unwrap();
        tracker.announce(peer.add(&["x"])).await;
    }
    let mut sent = BTreeMap::<String, u32>::new();
    for _ in 0..20 {
        let answer = tracker.get("/f/x").await;
        *sent.entry(location(&answer).split("/v1/").next().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(sent.len(), 4, "{sent:?}");
    assert!(sent.values().all(|n| *n == 5) && !sent.contains_key("http://10.0.0.7:8005"), "{sent:?}");
}

/// Whoever holds all of a folder gives it as one; where a name in it has several contents, nobody guesses.
#[tokio::test]
async fn folders() {
    let tracker = TestTracker::new().await;
    let (mut all, mut some) = (TestPeer::new(1), TestPeer::new(2));
    some.message.port = 7702;
    tracker.announce(all.add(&["a/b c/x", "a/b c/d/y", "a/b c!", "a/z"])).await;
    tracker.announce(some.add(&["a/b c/x", "elsewhere/y"])).await;
    for _ in 0..10 {
        assert_eq!(location(&tracker.get("/f/a/b%20c.torrent").await), "http://10.0.0.7:7701/f/a/b%20c.torrent");
    }
    let info = tracker.get("/v1/folders/a/b%20c").await.json;
    assert_eq!((&info["path"], &info["n_files"], &info["n_bytes"]), (&"a/b c".into(), &2.into(), &16.into()), "{info}");
    assert_eq!(info["owners"].as_array().unwrap().len(), 1, "{info}");
    for unknown in ["/f/a/b.torrent", "/f/nope.torrent", "/v1/folders/a/b", "/v1/folders/a/z", "/v1/folders/..%2Fa"] {
        assert_eq!(tracker.get(unknown).await.slug(), "not-found", "{unknown}");
    }

    // One more file that only the other one has: now nobody holds all of it.
    tracker.announce(some.add(&["a/b c/more"])).await;
    let answer = tracker.get("/f/a/b%20c.torrent").await;
    assert_eq!((answer.status, answer.slug()), (StatusCode::SERVICE_UNAVAILABLE, "no-owner".into()));
    assert!(answer.json["detail"].as_str().unwrap().contains("all files of this folder"), "{answer:?}");
    assert_eq!(location(&tracker.get("/f/elsewhere.torrent").await), "http://10.0.0.7:7702/f/elsewhere.torrent");

    some.add_body(&["a/b c/x"]);
    some.message.added[0].content_id = ContentId::of(b"another x");
    tracker.announce(some.request(some.body())).await;
    let answer = tracker.get("/f/a/b%20c.torrent").await;
    assert_eq!((answer.status, answer.slug()), (StatusCode::CONFLICT, "ambiguous".into()));
    assert!(answer.json["detail"].as_str().unwrap().starts_with("a/b c/x "), "{answer:?}");
    // A file that is called so comes first.
    tracker.announce(all.add(&["a/b c.torrent"])).await;
    assert!(location(&tracker.get("/f/a/b%20c.torrent").await).ends_with("?name=b%20c.torrent"));
}

#[tokio::test]
async fn folders_that_are_too_large() {
    let tracker = TestTracker::new().await;
    let names: Vec<_> = (0..10_001).map(|n| format!("d/{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut peer = TestPeer::new(1);
    for page in names.chunks(5_000) {
        tracker.announce(peer.add(page)).await;
    }
    let answer = tracker.get("/f/d.torrent").await;
    assert_eq!((answer.status, answer.slug()), (StatusCode::CONFLICT, "too-many-files".into()));
}
