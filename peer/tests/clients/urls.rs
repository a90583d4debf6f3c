//! curl, wget and aria2c with a URL or a Metalink, and the headers that make it work.

use axum::http::HeaderMap;
use axum::routing::get;
use potluck_common::ContentId;
use reqwest::StatusCode;
use sha2::Digest as _;

use crate::harness::{Node, Tracker, eventually, http, noise, quick};
use crate::tools::{owners, run, sent};

#[tokio::test(flavor = "multi_thread")]
async fn curl_and_wget_by_name_from_the_tracker() {
    let data = noise(3 << 20, 1);
    let (tracker, nodes) = owners(2, "dir/crème 100% #1?.bin", &data).await;
    let url = format!("{}/f/dir/cr%C3%A8me%20100%25%20%231%3F.bin", tracker.url);
    let folder = tempfile::tempdir().unwrap();
    if let Some(output) = run("curl", folder.path(), &["-fsSLO", &url]).await {
        assert!(output.status.success(), "{output:?}");
        // What curl makes of the URL's last part is its own affair.
        let saved = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert!(std::fs::read(saved.path()).unwrap() == data);
    }
    // With the name that the owner was told to give it.
    if let Some(output) = run("curl", folder.path(), &["-fsSLI", &url]).await {
        let head = String::from_utf8_lossy(&output.stdout);
        let name = "content-disposition: attachment; filename*=UTF-8''cr%C3%A8me%20100%25%20%231%3F.bin";
        assert!(head.contains(name), "{head}");
    }
    if let Some(output) = run("wget", folder.path(), &["-q", "-O", "saved", &url]).await {
        assert!(output.status.success(), "{output:?}");
        assert!(std::fs::read(folder.path().join("saved")).unwrap() == data);
    }
    // A person's mistake is an error to a program, and nothing is saved.
    if let Some(output) = run("curl", folder.path(), &["-fsSLo", "nope", &format!("{}/f/nope", tracker.url)]).await {
        assert_eq!(output.status.code(), Some(22), "{output:?}");
        assert!(!folder.path().join("nope").exists());
    }
    nodes[0].is_well().await;
}

/// RFC 6249, RFC 9530: one URL is enough for aria2c to pull from all owners, and to verify the whole.
#[tokio::test(flavor = "multi_thread")]
async fn aria2c_pulls_from_all_owners() {
    let data = noise(24 << 20, 2);
    let (tracker, nodes) = owners(3, "big file.bin", &data).await;
    let folder = tempfile::tempdir().unwrap();
    for (n, url) in [format!("{}/f/big%20file.bin", nodes[0].base()), format!("{}/f/big%20file.bin", tracker.url)]
        .iter()
        .enumerate()
    {
        let out = format!("copy{n}");
        let before = sent(&nodes);
        let args = ["--log=-", "--log-level=info", "-k1M", "-o", &out, url];
        let Some(output) = run("aria2c", folder.path(), &args).await else { return };
        let log = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{log}");
        assert!(std::fs::read(folder.path().join(&out)).unwrap() == data);
        let gave: Vec<_> = sent(&nodes).iter().zip(before).map(|(after, before)| after - before).collect();
        assert!(gave.iter().all(|n| *n >= 1 << 20), "each owner gave its part: {gave:?}");
        assert!(log.contains("Verification finished successfully"), "the whole was verified: {log}");
    }
}

/// What aria2c is told of the whole it holds against what it got, whoever gave it: an owner whose digest is broken spoils a
/// download from several, and one with other bytes its own.
#[tokio::test(flavor = "multi_thread")]
async fn aria2c_believes_no_broken_owner() {
    let data = noise(4 << 20, 8);
    let (_tracker, nodes) = owners(2, "x", &data).await;
    let mut spoiled = data.clone();
    spoiled[3 << 20] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    for (n, (given, said, others)) in [(&data, &spoiled, &nodes[..]), (&spoiled, &data, &[])].into_iter().enumerate() {
        let mut headers = HeaderMap::new();
        let sum = base64(&sha2::Sha256::digest(said));
        headers.insert("digest", format!("SHA-256={sum}").parse().unwrap());
        for (node, pri) in others.iter().zip(1..) {
            let link = format!("<{}/v1/content/{}>; rel=duplicate; pri={pri}", node.base(), ContentId::of(&data));
            headers.append("link", link.parse().unwrap());
        }
        let given = given.clone();
        let broken = axum::Router::new().route("/x", get(async move || (headers, given)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, broken).await });
        let out = format!("copy{n}");
        let Some(output) = run("aria2c", folder.path(), &["-k1M", "-o", &out, &url]).await else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(32), "checksum validation failed: {text}");
        assert!(text.contains("hecksum"), "{text}");
        serving.abort();
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.encode(bytes)
}

/// RFC 5854: pieces are verified, and what is wrong is fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn aria2c_verifies_pieces_of_a_metalink() {
    let data = noise((5 << 20) + 7, 3);
    let (tracker, nodes) = owners(2, "a <b>'s.bin", &data).await;
    let folder = tempfile::tempdir().unwrap();
    for url in [
        format!("{}/f/a%20%3Cb%3E%27s.bin.meta4", tracker.url),
        format!("{}/f/a%20%3Cb%3E%27s.bin.meta4", nodes[0].base()),
        format!("{}/v1/content/{}/metalink", nodes[1].base(), ContentId::of(&data)),
    ] {
        let follows = potluck_common::net::client::plain().build().unwrap();
        let response = follows.get(&url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{url}");
        assert_eq!(response.headers()["content-type"], "application/metalink4+xml");
        let text = response.text().await.unwrap();
        assert_eq!(text.matches("<hash>").count(), 6, "{text}");
        assert_eq!(text.matches("<url").count(), 2, "{text}");
        std::fs::write(folder.path().join("file.meta4"), text).unwrap();

        // With a damaged copy here already, only the damaged piece is to be fetched.
        let mut damaged = data.clone();
        damaged[3 << 20] ^= 1;
        let copy = folder.path().join("a <b>'s.bin");
        std::fs::write(&copy, damaged).unwrap();
        let before: u64 = sent(&nodes).iter().sum();
        let args = ["--log=-", "--log-level=info", "--check-integrity=true", "-k1M", "file.meta4"];
        let Some(output) = run("aria2c", folder.path(), &args).await else { return };
        let log = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{log}");
        assert!(std::fs::read(&copy).unwrap() == data, "{log}");
        let fetched = sent(&nodes).iter().sum::<u64>() - before;
        assert!((1..=2 << 20).contains(&fetched), "{fetched} bytes for one piece of 1 MiB: {log}");
        std::fs::remove_file(&copy).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_for_people_and_none_for_peers() {
    let data = noise(100_000, 4);
    let (_tracker, nodes) = owners(3, "x", &data).await;
    let id = ContentId::of(&data);
    let node = &nodes[0];
    let head = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = http().head(format!("{}{path}", node.base()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    let by_id = format!("/v1/content/{id}");
    for path in ["/f/x", &by_id] {
        // Asked for, a short one is waited for; asked once, it is known.
        for headers in [&[("want-repr-digest", "sha-256=5")][..], &[]] {
            let response = head(path, headers).await;
            let links: Vec<_> = response.headers().get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
            let mut want: Vec<_> = nodes[1..].iter().map(|node| format!("<{}/v1/content/{id}>", node.base())).collect();
            let mut got: Vec<_> = links.iter().map(|link| link.split(';').next().unwrap().to_owned()).collect();
            want.sort();
            got.sort();
            assert_eq!(got, want);
            assert!(
                links.iter().enumerate().all(|(n, link)| link.ends_with(&format!("; rel=duplicate; pri={}", n + 1)))
            );
            let sum = response.headers()["repr-digest"].to_str().unwrap().to_owned();
            let base64 = sum.strip_prefix("sha-256=:").unwrap().strip_suffix(':').unwrap();
            assert_eq!(response.headers()["digest"].to_str().unwrap(), format!("SHA-256={base64}"));
        }
        let response = head(path, &[("user-agent", "potluck/0.1.0"), ("want-repr-digest", "sha-256=5")]).await;
        assert!(!response.headers().contains_key("link") && !response.headers().contains_key("digest"));
    }
    let named = head(&format!("{by_id}?name=a%20b.txt"), &[]).await;
    assert_eq!(named.headers()["content-disposition"], "attachment; filename*=UTF-8''a%20b.txt");
    assert!(!head(&by_id, &[]).await.headers().contains_key("content-disposition"));
    for unknown in ["/f/nope.meta4", "/v1/content/x/metalink", &format!("/v1/content/{}/metalink", ContentId::of(b""))]
    {
        assert_eq!(node.get(unknown).await.status(), StatusCode::NOT_FOUND, "{unknown}");
    }
}

/// A tracker that is away costs people's clients half a second in ten, and peers nothing; what is known otherwise stays.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_tracker() {
    let data = noise(10_000, 5);
    let (tracker, nodes) = owners(1, "x", &data).await;
    tracker.stop().await;
    let asked = async || http().get(format!("{}/f/x", nodes[0].base())).send().await.unwrap();
    let response = asked().await;
    assert!(!response.headers().contains_key("link"));
    assert!(response.bytes().await.unwrap() == data);
    eventually("the digest is made", async || asked().await.headers().contains_key("repr-digest")).await;
}

/// A digest is of the bytes that are served: it goes with them when the file changes, and is kept over a restart.
#[tokio::test(flavor = "multi_thread")]
async fn digests_are_kept_and_follow_the_content() {
    let (one, two) = (noise(50_000, 6), noise(50_000, 7));
    let tracker = Tracker::start().await;
    let node = Node::start(&tracker, "node", &[("x", &one)]).await;
    tracker.wait_for_owners(ContentId::of(&one), 1).await;
    let ask = async |node: &Node| {
        let request = http().get(format!("{}/f/x", node.base())).header("want-repr-digest", "sha-256=1");
        let response = request.send().await.unwrap();
        response.headers().get("repr-digest").map(|value| value.to_str().unwrap().to_owned())
    };
    let first = ask(&node).await.expect("waited for");
    crate::harness::write(&node.share(), "x", &two);
    tracker.wait_for_owners(ContentId::of(&two), 1).await;
    let second = ask(&node).await.expect("waited for");
    assert_ne!(first, second);
    let root = node.stop().await;
    let node = Node::start_on(root, |share| quick(share, &tracker.url, "node")).await.unwrap();
    eventually("it is served again", async || node.get("/f/x").await.status() == StatusCode::OK).await;
    let without_waiting = http().get(format!("{}/f/x", node.base())).send().await.unwrap();
    assert_eq!(without_waiting.headers()["repr-digest"].to_str().unwrap(), second);
}
