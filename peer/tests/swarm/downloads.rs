//! Honest swarms.

use potluck_common::ContentId;

use crate::harness::{Node, Tracker, noise};

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_from_two_owners_at_once() {
    let tracker = Tracker::start().await;
    let data = noise(20 << 20, 1);
    let id = ContentId::of(&data);
    let _a = Node::start(&tracker, "a", &[("big/file.bin", &data)]).await;
    let _b = Node::start(&tracker, "b", &[("big/file.bin", &data)]).await;
    let c = Node::start(&tracker, "c", &[]).await;
    tracker.wait_for_owners(id, 2).await;
    let finished = c.download("big/file.bin").await.unwrap();
    assert_eq!(finished.content_id, id);
    assert_eq!(c.read("big/file.bin"), Some(data));
    let names: Vec<_> = finished.from.iter().map(|share| share.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{:?}", finished.from);
    tracker.wait_for_owners(id, 3).await;
}
