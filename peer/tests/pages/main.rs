//! The pages of tracker and peer in a real Chromium: what is on them, that they stay fresh, that names stay names, keyboard,
//! phone, light and dark, and that they do without scripts what can be done without. Screenshots of each are kept in `screenshots` of the target folder.
//!
//! Needs `chromium` and `chromedriver` (scripts/test.sh installs them); without them it says SKIPPED.

#![allow(clippy::unwrap_used)] // Also in helpers, which clippy does not take for tests.

mod browser;
mod docs;
#[allow(dead_code, unreachable_pub)] // The swarm tests use more of it.
#[path = "../swarm/harness.rs"]
mod harness;
mod without_scripts;

use std::time::Duration;

use potluck_common::ContentId;
use potluck_peer::config::Config;
use potluck_peer::limit::schedule::Limit;
use potluck_peer::verb::{Direction, LimitChange, Verb};
use serde_json::{Value, json};

use browser::{Browser, Scheme, Width};
use harness::{DEADLINE, Node, Tracker, noise, quick, root_with};

/// A name that would do harm in a page that does not escape it; the slash makes a folder of its first part.
const NASTY: &str = "<script>document.title='owned'</script>.txt";
const QUOTES: &str = "\"' onmouseover='document.title=1' <img src=x onerror=document.title='owned'>.txt";
const BIG: &str = "feast/banquet.bin";

/// Waits for a script's answer to be what it should.
async fn until(browser: &Browser, what: &str, script: &str, want: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let value = browser.run(script).await;
        if want(&value) {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}; at last {value}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Shows a page at both widths in both schemes: nothing sticks out, all text can be read, and there is a picture of it.
async fn look_at(browser: &Browser, name: &str) {
    for (width, scheme) in [
        (Width::Desktop, Scheme::Light),
        (Width::Desktop, Scheme::Dark),
        (Width::Phone, Scheme::Light),
        (Width::Phone, Scheme::Dark),
    ] {
        browser.look(width, scheme).await;
        let wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]").await;
        assert!(wide[0].as_u64() <= wide[1].as_u64(), "{name} {width:?}: it scrolls sideways: {wide}");
        let thin = "return [...document.querySelectorAll('main .name, main .path')]
                    .filter(name => name.offsetWidth < 40 && name.textContent.length > 4).map(name => name.textContent)";
        assert_eq!(browser.run(thin).await, json!([]), "{name} {width:?}: names squeezed into a column");
        let worst = browser.run(browser::WORST_CONTRAST).await;
        assert!(worst["ratio"].as_f64().unwrap() >= 4.5, "{name} {scheme:?}: hard to read: {worst}");
        browser.keep(&format!("{name}-{width:?}-{scheme:?}").to_lowercase()).await;
    }
    let papers = [Scheme::Light, Scheme::Dark].map(async |scheme| {
        browser.look(Width::Desktop, scheme).await;
        browser.run("return getComputedStyle(document.body).backgroundColor").await
    });
    let [light, dark] = papers;
    let light = light.await;
    assert_ne!(light, dark.await, "{name}: dark is another colour");
    browser.look(Width::Desktop, Scheme::Light).await;
}

/// Tab goes through what can be used in the order in which it stands, and where it is can be seen.
async fn walk(browser: &Browser) -> Vec<String> {
    browser.run("document.activeElement.blur(); scrollTo(0, 0)").await;
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..12 {
        browser.tab().await;
        let at = browser
            .run(
                "const at = document.activeElement, style = getComputedStyle(at);
                 const all = [...document.querySelectorAll('a, button, input, [tabindex=\"0\"]')];
                 return { order: all.indexOf(at), outline: style.outlineStyle,
                          name: at.id || at.className || at.textContent.trim() };",
            )
            .await;
        assert_eq!(at["order"].as_u64(), Some(seen.len() as u64), "in the order of the page: {at} after {seen:?}");
        assert_ne!(at["outline"], "none", "{at}");
        seen.push(at["name"].as_str().unwrap().to_owned());
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_in_a_real_browser() {
    let Some(browser) = Browser::start().await else { return };
    let tracker = Tracker::start().await;
    empty(&browser, &tracker).await;

    let data = noise(24 << 20, 1);
    let files: Vec<_> = (1..=9).map(|n| (format!("menu/course-{n}.md"), noise(3_000 * n, n as u64))).collect();
    let mut shared: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (name.as_str(), &data[..])).collect();
    shared.extend([(BIG, &data[..]), (NASTY, b"harm"), (QUOTES, b"more")]);
    let anna = Node::start(&tracker, "anna", &shared).await;
    let _berta = Node::start(&tracker, "berta", &shared[..10]).await;
    tracker.wait_for_owners(ContentId::of(&data), 2).await;
    let slow = |share: &std::path::Path| Config {
        // Too slow to end before all has been looked at; then it is lifted.
        limit_down: "512K".parse().unwrap(),
        ..quick(share, &tracker.url, "<b>a peer with a long name")
    };
    let leecher = Node::start_on(root_with(&[("soup.txt", b"soup")]), slow).await.unwrap();

    dashboard(&browser, &tracker).await;
    escaped(&browser, &tracker).await;
    browser.goto(&format!("{}/files/{BIG}", tracker.url)).await;
    let (downloaded, ()) = tokio::join!(leecher.download(BIG), filling(&browser, &tracker, &leecher));
    downloaded.unwrap();
    let complete = "return [...document.querySelectorAll('.done')].filter(done => done.textContent === 'all').length";
    browser.goto(&format!("{}/files/{BIG}", tracker.url)).await;
    until(&browser, "three complete owners", complete, |n| *n == 3).await;
    look_at(&browser, "file").await;
    browser.goto(&format!("{}/files/nope", tracker.url)).await;
    look_at(&browser, "not-here").await;
    let complaints = browser.complaints().await;
    let said = |text: &str| text.contains("404 (Not Found)");
    assert!(!complaints.is_empty() && complaints.iter().all(|text| said(text)), "{complaints:?}");
    all_peers(&browser, &tracker).await;
    browser.goto(anna.base()).await;
    until(&browser, "its files", "return document.querySelectorAll('.files li').length", |n| *n == 12).await;
    look_at(&browser, "peer").await;
    assert_eq!(browser.complaints().await, [""; 0], "nothing is complained of");
    policy_works(&browser).await;
    browser.end().await;
}

async fn empty(browser: &Browser, tracker: &Tracker) {
    browser.goto(&tracker.url).await;
    let text = browser.run("return document.body.innerText").await;
    let text = text.as_str().unwrap();
    assert!(text.contains("Nobody is here yet") && text.contains("No files yet"), "{text}");
    until(browser, "it is live", "return document.getElementById('pulse').innerText", |text| *text == "live").await;
    look_at(browser, "empty").await;
}

async fn dashboard(browser: &Browser, tracker: &Tracker) {
    // Still the page that was loaded while nobody was here: it has heard of them.
    let totals = "return [...document.querySelectorAll('.totals dd')].map(dd => dd.innerText)";
    let totals = until(browser, "totals", totals, |all| all[0] == "3" && all[1] == "13").await;
    assert_eq!(totals[2], "24 MiB");
    assert_eq!(tracker.get("/v1/stats").await.unwrap()["n_files"], 13);
    let seen = walk(browser).await;
    assert_eq!(seen[..3], ["skip", "brand", "name"], "{seen:?}");
    assert!(seen.contains(&"q".to_owned()), "the search is among the first dozen: {seen:?}");
    look_at(browser, "dashboard").await;

    browser.write("#q", "COURSE-3").await;
    let rows = "return [...document.querySelectorAll('.files .name')].map(name => name.innerText)";
    until(browser, "what was searched", rows, |rows| *rows == json!(["menu/course-3.md"])).await;
    let typed =
        browser.run("return [location.search, document.activeElement.id, document.getElementById('q').value]").await;
    assert_eq!(typed, json!(["?q=COURSE-3", "q", "COURSE-3"]));
    browser.goto(&format!("{}/?q=nothing%20like%20it", tracker.url)).await;
    let text = browser.run("return document.getElementById('files-card').innerText").await;
    assert!(text.as_str().unwrap().contains("No shared file has “nothing like it” in its name."), "{text}");
    assert_eq!(browser.complaints().await, [""; 0]);
}

async fn all_peers(browser: &Browser, tracker: &Tracker) {
    browser.goto(&format!("{}/peers", tracker.url)).await;
    let rows = "return [...document.querySelectorAll('.peers .name')].map(name => name.innerText)";
    assert_eq!(browser.run(rows).await, json!(["<b>a peer with a long name", "anna", "berta"]));
    look_at(browser, "peers").await;
    browser.write("#q", "ERT").await;
    until(browser, "who was searched", rows, |rows| *rows == json!(["berta"])).await;
    assert_eq!(browser.run("return location.pathname + location.search").await, "/peers?q=ERT");
    assert_eq!(browser.complaints().await, [""; 0]);
}

/// P24, H07: names are text.
async fn escaped(browser: &Browser, tracker: &Tracker) {
    browser.goto(&tracker.url).await;
    let rows = "return [...document.querySelectorAll('.files .name')].map(name => name.innerText)";
    let rows = browser.run(rows).await;
    for name in [NASTY, QUOTES] {
        assert!(rows.as_array().unwrap().contains(&json!(name)), "{name} in {rows}");
        browser.goto(&format!("{}/files/{}", tracker.url, potluck_common::percent::path(name))).await;
        let harm =
            "return [document.querySelectorAll('main script, main img, main b, [onmouseover]').length, document.title,
                    document.querySelector('h1').innerText]";
        let harm = browser.run(harm).await;
        let title = name.rsplit('/').next().unwrap();
        assert_eq!(harm, json!([0, format!("{title} · potluck"), name]));
    }
    assert_eq!(browser.complaints().await, [""; 0]);
}

/// While a download runs at its limit, the page of the file fills, and the others show what moves; nothing is loaded anew.
/// At the end the limit is lifted.
async fn filling(browser: &Browser, tracker: &Tracker, leecher: &Node) {
    browser.run("window.same = true").await;
    let held = "return [...document.querySelectorAll('.holders li:first-child rect')]
                .reduce((sum, rect) => sum + Number(rect.getAttribute('width')), 0)";
    let first = until(browser, "the first parts", held, |n| n.as_u64() > Some(0)).await;
    until(browser, "more parts", held, |n| n.as_u64() > first.as_u64()).await;
    assert_eq!(browser.run("return window.same").await, true, "it was not loaded anew");
    look_at(browser, "file-filling").await;

    browser.goto(&tracker.url).await;
    let flows = "return [...document.querySelectorAll('.flows li')].map(row => row.innerText.replace(/\\s+/g, ' '))";
    let flows = until(browser, "what moves", flows, |rows| rows.as_array().is_some_and(|rows| rows.len() == 2)).await;
    for (row, from) in flows.as_array().unwrap().iter().zip(["", ""]) {
        let row = row.as_str().unwrap();
        assert!(row.contains("sends to <b>a peer with a long name") && row.contains("KiB/s"), "{row}{from}");
    }
    let drawn = browser.run("return document.querySelectorAll('.picture .drops').length").await;
    assert_eq!(drawn, 2);
    look_at(browser, "dashboard-moving").await;

    browser.goto(leecher.base()).await;
    let transfers = "return [...document.querySelectorAll('.transfers li')].map(row => row.innerText)";
    let rows =
        until(browser, "the transfer", transfers, |rows| rows.as_array().is_some_and(|rows| rows.len() == 1)).await;
    assert!(rows[0].as_str().unwrap().contains("% of 24 MiB"), "{rows}");
    let givers = "return document.querySelectorAll('.givers li').length";
    until(browser, "from whom", givers, |n| n.as_u64() > Some(0)).await;
    look_at(browser, "peer-fetching").await;
    assert_eq!(browser.complaints().await, [""; 0]);
    let change = LimitChange { direction: Direction::Down, limit: Limit::OFF };
    leecher.run(Verb::Limit { change: Some(change) }).await.1.unwrap();
}

/// The policy forbids what no page has, and what it forbids is told: so its silence in all other tests means something.
async fn policy_works(browser: &Browser) {
    browser
        .run(
            "const script = document.createElement('script'); script.textContent = 'window.owned = true';
             document.body.append(script);",
        )
        .await;
    assert_eq!(browser.run("return window.owned === undefined").await, true);
    let complaints = browser.complaints().await;
    assert!(complaints.iter().any(|text| text.contains("Content Security Policy")), "{complaints:?}");
}
