//! What the tracker counts of announces and of its leases.

use std::time::Duration;

use axum::http::StatusCode;
use potluck_common::protocol::AnnounceEvent;
use potluck_tracker::Config;

use crate::support::{TestPeer, TestTracker, get};

/// The value of a series, or `None` if it is not there.
async fn value(test: &TestTracker, series: &str) -> Option<f64> {
    let text = test.text(get("/metrics")).await;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn announces_and_leases() {
    let test = TestTracker::with(Config { lease: Duration::from_secs(15), ..Config::default() }).await;
    let announces =
        |event: &str, result: &str| format!(r#"potluck_tracker_announces_total{{event="{event}",result="{result}"}}"#);
    assert_eq!(value(&test, "potluck_tracker_peers").await, Some(0.0));
    let mut peer = TestPeer::new(1);
    test.announce(peer.add(&["a", "b"])).await;
    test.announce(peer.say(AnnounceEvent::Heartbeat)).await;
    assert_eq!(value(&test, &announces("started", "accepted")).await, Some(1.0));
    assert_eq!(value(&test, &announces("heartbeat", "accepted")).await, Some(1.0));
    assert_eq!(value(&test, r#"potluck_tracker_owners{holds="all"}"#).await, Some(2.0));
    let mut copy = TestPeer::new(1);
    copy.message.generation = 0;
    assert_eq!(test.send(copy.say(AnnounceEvent::Started)).await.status, StatusCode::CONFLICT);
    assert_eq!(value(&test, &announces("started", "refused")).await, Some(1.0));
    tokio::time::advance(Duration::from_secs(16)).await;
    test.tracker.swarm().expire();
    assert_eq!(value(&test, "potluck_tracker_leases_expired_total").await, Some(1.0));
    assert_eq!(value(&test, r#"potluck_tracker_owners{holds="all"}"#).await, Some(0.0));
    assert_eq!(value(&test, "potluck_tracker_peers").await, Some(0.0));
    tokio::time::advance(Config::default().forget_after).await;
    test.tracker.swarm().expire();
    assert_eq!(value(&test, "potluck_tracker_peers_forgotten_total").await, Some(1.0));
}

/// Two trackers in one process count apart.
#[tokio::test]
async fn counts_are_not_shared() {
    let (one, other) = (TestTracker::new().await, TestTracker::new().await);
    one.announce(TestPeer::new(1).add(&["a"])).await;
    assert_eq!(value(&one, "potluck_tracker_files").await, Some(1.0));
    assert_eq!(value(&other, "potluck_tracker_files").await, Some(0.0));
    let started = r#"potluck_tracker_announces_total{event="started",result="accepted"}"#;
    assert_eq!((value(&one, started).await, value(&other, started).await), (Some(1.0), None));
}
