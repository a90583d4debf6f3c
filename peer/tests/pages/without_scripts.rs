//! Everything but what is live is there with scripts off: read, search, turn pages, download.

use serde_json::json;

use crate::browser::Browser;
use crate::harness::{Node, Tracker, eventually};
use crate::until;

const ROWS: &str = "return [...document.querySelectorAll('.files .name')].map(name => name.innerText)";

#[tokio::test(flavor = "multi_thread")]
async fn pages_without_scripts() {
    let Some(browser) = Browser::start().await else { return };
    browser.forbid_scripts().await;
    let tracker = Tracker::start().await;
    let files: Vec<_> = (0..60).map(|n| (format!("menu/course-{n:02}.md"), format!("course {n}"))).collect();
    let shared: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let anna = Node::start(&tracker, "anna", &shared).await;
    eventually("all files are listed", async || tracker.names().await.len() == 60).await;

    browser.goto(&tracker.url).await;
    let totals = browser.run("return [...document.querySelectorAll('.totals dd')].map(dd => dd.innerText)").await;
    assert_eq!((&totals[0], &totals[1]), (&json!("1"), &json!("60")));
    let is_hidden = "return document.getElementById('pulse').hidden";
    assert_eq!(browser.run(is_hidden).await, true, "nothing says that it is live: scripts are off indeed");
    assert_eq!(browser.run(ROWS).await.as_array().unwrap().len(), 50);
    browser.click(".pager a[rel=next]").await;
    let n_rows = "return document.querySelectorAll('.files .name').length";
    until(&browser, "the second page of files", n_rows, |n| *n == 10).await;

    browser.write("#q", "COURSE-07").await;
    browser.click(".search button").await;
    until(&browser, "what was searched", ROWS, |rows| *rows == json!(["menu/course-07.md"])).await;
    browser.click(".files .name").await;
    until(&browser, "the page of the file", "return document.querySelector('h1').innerText", |text| {
        *text == "menu/course-07.md"
    })
    .await;
    let downloads = tempfile::tempdir().unwrap();
    browser.download_into(downloads.path()).await;
    browser.click(".actions .button").await;
    let saved = downloads.path().join("course-07.md");
    eventually("the file is saved", async || std::fs::read(&saved).is_ok_and(|bytes| bytes == b"course 7")).await;
    let owners = browser.run("return [...document.querySelectorAll('.holders li')].map(li => li.innerText)").await;
    assert!(owners.to_string().contains("anna"), "{owners}");

    browser.goto(&format!("{}/peers", tracker.url)).await;
    let text = browser.run("return document.body.innerText").await;
    assert!(text.as_str().unwrap().contains("60 files"), "{text}");
    browser.goto(anna.base()).await;
    browser.write("#q", "course-5").await;
    browser.click(".search button").await;
    until(&browser, "what was searched at the peer", n_rows, |n| *n == 10).await;

    browser.goto(&format!("{}/docs", tracker.url)).await;
    let text = browser.run("return document.body.innerText").await;
    let text = text.as_str().unwrap();
    for said in
        ["GET /v1/events", "curl -N", "GET /v1/files/{path}", "To try a question from here, scripts have to be on"]
    {
        assert!(text.contains(said), "{said} in {text}");
    }
    let n_buttons = "return document.querySelectorAll('form button:enabled').length";
    assert_eq!(browser.run(n_buttons).await, 0, "no button that would do nothing");
    assert_eq!(browser.complaints().await, [""; 0]);
    browser.end().await;
}
