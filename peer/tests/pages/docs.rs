//! `/docs` of tracker and peer: questions are really asked from it, and the answers shown.

use crate::browser::Browser;
use crate::harness::{Node, Tracker};
use crate::{look_at, until};

const NAME: &str = "menu/crème brûlée & more?.md";

/// Fills the form of a route, presses its button, and waits until what is shown has all of `want` in it.
async fn ask(browser: &Browser, route: &str, fields: &[(&str, &str)], want: &[&str]) {
    let form = format!("form[data-path=\"{route}\"]");
    for (field, text) in fields {
        browser.write(&format!("{form} input[name={field}]"), text).await;
    }
    browser.click(&format!("{form} button")).await;
    let shown = format!("return document.querySelector('{form} pre').innerText");
    let shown =
        until(browser, route, &shown, |text| want.iter().all(|want| text.as_str().unwrap().contains(want))).await;
    assert!(shown.as_str().unwrap().starts_with("GET /"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_asked_from_the_page() {
    let Some(browser) = Browser::start().await else { return };
    let tracker = Tracker::start().await;
    let anna = Node::start(&tracker, "anna", &[(NAME, b"sugar"), ("soup.txt", b"soup")]).await;
    crate::harness::eventually("its files are listed", async || tracker.names().await.len() == 2).await;

    browser.goto(&tracker.url).await;
    browser.click(".foot a").await;
    until(&browser, "the page that is linked", "return location.pathname", |path| *path == "/docs").await;
    ask(&browser, "/v1/stats", &[], &["200", "content-type: application/json", "\"n_files\": 2"]).await;
    ask(&browser, "/v1/files", &[("q", "SOUP"), ("limit", "1")], &["GET /v1/files?q=SOUP&limit=1", "200", "soup.txt"])
        .await;
    ask(&browser, "/v1/files/{path}", &[("path", NAME)], &["200", NAME, "anna"]).await;
    ask(&browser, "/v1/peers", &[("max", "many")], &["400", "urn:potluck:problem:"]).await;
    // A stream: shown as it comes, though it does not end.
    ask(&browser, "/v1/events", &[], &["text/event-stream", "event: hello"]).await;
    look_at(&browser, "docs").await;
    let wanted = |text: &str| text.contains("400 (Bad Request)");
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|text| wanted(text)), "{complaints:?}");

    browser.goto(&format!("{}/docs", anna.base())).await;
    ask(&browser, "/v1/index", &[("limit", "1")], &["200", "\"name\": \"anna\""]).await;
    ask(&browser, "/f/{path}", &[("path", NAME)], &["200", "etag: \"b3:", "sugar"]).await;
    assert_eq!(browser.complaints().await, [""; 0]);
    browser.end().await;
}
