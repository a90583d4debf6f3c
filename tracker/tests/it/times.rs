//! What peers say of the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header;
use potluck_common::ContentId;
use potluck_common::protocol::{AnnounceEvent, GENERATION_SHIFT, IndexEntry, SyncMode};
use potluck_common::register::{Dot, FileValue, Register, Value};
use serde_json::json;

use crate::support::{TestPeer, TestTracker};

const TEN_YEARS_MS: i64 = 3_650 * 24 * 3_600_000;

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// T25: whatever the clock of a peer says, ten years late, right, or ten years early, it is not compared with ours. Its lease
/// lasts as long as anybody's, by the tracker's own monotonic clock, and people are shown when the tracker heard of it. What
/// tells a peer's time: the number of its start, times of files in the index, the `Date` of HTTP, and fields that only a
/// tracker sends.
#[tokio::test(start_paused = true)]
async fn t25_clocks_of_peers_are_ignored() {
    let test = TestTracker::new().await;
    let began_ms = now_ms();
    let clocks = [-TEN_YEARS_MS, 0, TEN_YEARS_MS];
    let mut peers: Vec<_> = (1..).zip(clocks).map(|(n, late_ms)| (TestPeer::new(n), began_ms + late_ms)).collect();
    for (peer, claimed_ms) in &mut peers {
        let minutes = u64::try_from(*claimed_ms / 60_000).unwrap();
        peer.message.generation = minutes;
        peer.message.sync = Some(SyncMode::Both);
        let mut register = Register::default();
        let (content_id, mtime_ns) = (ContentId::of(b"a"), *claimed_ms * 1_000_000);
        let dot = Dot { by: peer.message.peer_id, n: minutes << GENERATION_SHIFT };
        register.write(dot, &[], Value::File(FileValue { mtime_ns, content_id, len: 1, executable: false }));
        peer.message.index = vec![IndexEntry { path: peer.message.name.parse().unwrap(), register }].into();
    }
    let say = async |peer: &mut TestPeer, claimed_ms: i64, paths: &[&str]| {
        let mut message: serde_json::Value = serde_json::from_str(&peer.add_body(paths)).unwrap();
        for name in ["now_ms", "since_ms", "seen_ms", "lease_ms", "heartbeat_ms", "expires_ms", "timestamp"] {
            message[name] = json!(claimed_ms);
        }
        let mut request = peer.request(message.to_string());
        let date =
            if claimed_ms < began_ms { "Fri, 21 Oct 2016 07:28:00 GMT" } else { "Tue, 21 Oct 2036 07:28:00 GMT" };
        request.headers_mut().insert(header::DATE, date.parse().unwrap());
        test.announce(request).await
    };
    for (peer, claimed_ms) in &mut peers {
        let answer = say(peer, *claimed_ms, &["a"]).await;
        assert_eq!((&answer["lease_ms"], &answer["resync"]), (&json!(15_000), &json!(false)), "{answer}");
        peer.message.event = AnnounceEvent::Heartbeat;
        peer.message.index = vec![].into();
    }
    for lease in 0..2 {
        let listed = test.get("/v1/peers").await.json["peers"].as_array().unwrap().clone();
        assert_eq!(listed.len(), 3, "lease {lease}");
        for peer in &listed {
            for name in ["since_ms", "seen_ms"] {
                let shown = peer[name].as_i64().unwrap();
                assert!((began_ms..=now_ms()).contains(&shown), "lease {lease}, {name}: {peer}");
            }
        }
        assert_eq!(test.get(&format!("/v1/content/{}", ContentId::of(b"a"))).await.json["n_owners"], 3);
        tokio::time::advance(Duration::from_millis(14_999)).await;
        assert!(test.tracker.swarm().expire().is_empty(), "lease {lease}: nobody leaves early");
        tokio::time::advance(Duration::from_millis(1)).await;
        let mut gone = test.tracker.swarm().expire();
        gone.sort();
        assert_eq!(gone, ["node1", "node2", "node3"], "lease {lease}: nobody stays longer");
        for (peer, claimed_ms) in &mut peers {
            say(peer, *claimed_ms, &[]).await;
        }
    }
}
