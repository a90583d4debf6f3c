//! Every answer as it looks, pinned: in a pipe, in colour, and as JSON. `!` stands before remarks on standard error.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::verb::{Download, From};

#[derive(Clone, Default)]
struct Transcript(Arc<Mutex<Vec<u8>>>);

struct Marked(Transcript);

impl Write for Transcript {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Marked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).unwrap().trim_end();
        let marked: String = text.lines().map(|line| format!("! {line}\n")).collect();
        self.0.write_all(marked.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn transcript(verb: &Verb, events: &[Event], format: Format, look: Look) -> String {
    let transcript = Transcript::default();
    let mut out = Out::new(transcript.clone(), Marked(transcript.clone()));
    let mut renderer = Renderer::new(verb, format, look, &mut out);
    for (index, event) in events.iter().enumerate() {
        renderer.on_event(event, Duration::from_secs(index as u64 * 2)).unwrap();
    }
    String::from_utf8(transcript.0.lock().unwrap().clone()).unwrap()
}

fn download() -> Verb {
    Verb::Download(Download { names: vec!["x".into()], from: From::All, output: None, origin: None })
}

fn cases() -> Vec<(&'static str, Verb, Vec<Event>)> {
    let show = || Verb::Show { pattern: None };
    let files = sample::files();
    let failed = Failed::new(FailureKind::NotFound, "no file matches \"a\u{202e}b\"", "`show` lists what there is.");
    let one = vec![
        Event::Planned { n_files: 1, n_bytes: 100 << 20 },
        Event::Progress(sample::transfer("film.mkv", 2, 100 << 20, 45 << 20, None)),
        Event::Finished(sample::finished("film.mkv", 2, 100 << 20, 2_500, &[("node2", 50 << 20), ("node3", 10 << 20)])),
        Event::Done,
    ];
    let mut elsewhere = sample::finished("film.mkv", 2, 100 << 20, 2_500, &[("node2", 100 << 20)]);
    elsewhere.path = "/tmp/other.mkv".into();
    let refused = Failed::new(FailureKind::Unverified, "film.mkv: no owner gave bytes that verify", "");
    vec![
        (
            "show",
            show(),
            vec![Event::Files { files: files[..2].to_vec() }, Event::Files { files: files[2..].to_vec() }, Event::Done],
        ),
        ("show_nothing", show(), vec![Event::Files { files: vec![] }, Event::Done]),
        (
            "show_no_match",
            Verb::Show { pattern: Some("a\u{202e}b".into()) },
            vec![Event::Files { files: vec![] }, Event::Done],
        ),
        ("verify_nothing", Verb::Verify { pattern: None }, vec![Event::Done]),
        ("show_failed", show(), vec![Event::Failed(failed)]),
        ("peers", Verb::Peers, vec![Event::Peers { peers: sample::peers() }, Event::Done]),
        ("getip", Verb::Getip { target: None }, vec![Event::Addresses { addresses: sample::addresses() }, Event::Done]),
        ("status", Verb::Status, vec![Event::Status(sample::status()), Event::Done]),
        ("limit", Verb::Limit { change: None }, vec![Event::Limits(sample::limits()), Event::Done]),
        ("download_several", download(), sample::download()),
        ("download_one", download(), one),
        (
            "download_elsewhere",
            download(),
            vec![Event::Planned { n_files: 1, n_bytes: 100 << 20 }, Event::Finished(elsewhere), Event::Done],
        ),
        (
            "download_refused",
            download(),
            vec![
                Event::Planned { n_files: 1, n_bytes: 5 },
                Event::Unfinished { name: "film.mkv".into(), why: refused.clone() },
                Event::Failed(refused),
            ],
        ),
        (
            "download_ambiguous",
            download(),
            vec![
                Event::Ambiguous { name: "notes.txt".into(), candidates: sample::candidates() },
                Event::Failed(Failed::new(FailureKind::Usage, "notes.txt is ambiguous", "Say which: NAME@ID-PREFIX.")),
            ],
        ),
        (
            "verify",
            Verb::Verify { pattern: None },
            vec![
                Event::Verified { path: "a".parse().unwrap(), intact: true },
                Event::Verified { path: "b\u{200b}".parse().unwrap(), intact: false },
                Event::Failed(Failed::new(FailureKind::Unverified, "1 of 2 files is damaged", "Download it again.")),
            ],
        ),
        (
            "manifest",
            Verb::Manifest { pattern: None, swarm: false },
            vec![Event::Entries { entries: sample::entries() }, Event::Entries { entries: vec![] }, Event::Done],
        ),
        ("stop", Verb::Stop, vec![Event::Done]),
    ]
}

#[test]
fn plain() {
    let look = Look { now_ms: sample::NOW_MS, ..Look::PLAIN };
    for (name, verb, events) in cases() {
        insta::assert_snapshot!(format!("plain_{name}"), transcript(&verb, &events, Format::Text, look));
    }
}

#[test]
fn json() {
    for (name, verb, events) in cases() {
        let text = transcript(&verb, &events, Format::Json, Look::PLAIN);
        for line in text.lines().filter(|line| !line.starts_with("! ")) {
            let _: serde_json::Value = serde_json::from_str(line).unwrap();
        }
        insta::assert_snapshot!(format!("json_{name}"), text);
    }
}

/// Colours are all that a terminal's text has more than a pipe's, but for the line under `show`.
#[test]
fn colours() {
    let plain = Look { now_ms: sample::NOW_MS, ..Look::PLAIN };
    let colour = Look { colour: true, ..plain };
    for (name, verb, events) in cases() {
        let coloured = transcript(&verb, &events, Format::Text, colour);
        let without = console::strip_ansi_codes(&coloured);
        assert_eq!(without, transcript(&verb, &events, Format::Text, plain), "{name}");
        assert!(!without.chars().any(|c| c != '\n' && c.is_control()), "{name}");
    }
}

#[test]
fn progress_without_bars_is_rare() {
    let event = |n_bytes, waiting| Event::Progress(sample::transfer("film.mkv", 2, 100 << 20, n_bytes, waiting));
    let mut events = vec![Event::Planned { n_files: 1, n_bytes: 100 << 20 }];
    events.extend((0..9).map(|n| event(n << 20, None)));
    events.extend([event(9 << 20, Some("no space")), event(9 << 20, Some("no space")), event(10 << 20, None)]);
    insta::assert_snapshot!("plain_progress", transcript(&download(), &events, Format::Text, Look::PLAIN));
}

struct ClosedPipe;

impl Write for ClosedPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_pipe_ends_the_verb_and_does_not_panic() {
    let (sender, receiver) = mpsc::channel(8);
    sender.send(Event::Peers { peers: sample::peers() }).await.unwrap();
    let mut out = Out::new(ClosedPipe, ClosedPipe);
    let mut renderer = Renderer::new(&Verb::Peers, Format::Text, Look::PLAIN, &mut out);
    let error = follow(receiver, &mut renderer, std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_peer_that_vanishes_is_a_failure() {
    let (sender, receiver) = mpsc::channel(8);
    drop(sender);
    let transcript = Transcript::default();
    let mut out = Out::new(transcript.clone(), Marked(transcript.clone()));
    let mut renderer = Renderer::new(&Verb::Peers, Format::Text, Look::PLAIN, &mut out);
    let ending = follow(receiver, &mut renderer, std::future::pending()).await.unwrap();
    assert_eq!(ending, Ending::Failed(FailureKind::Failed));
    insta::assert_snapshot!("vanished", String::from_utf8(transcript.0.lock().unwrap().clone()).unwrap());
}

#[tokio::test]
async fn cancelling_drops_the_verb_and_says_how_to_go_on() {
    let (sender, receiver) = mpsc::channel(8);
    let transcript = Transcript::default();
    let mut out = Out::new(transcript.clone(), Marked(transcript.clone()));
    let mut renderer = Renderer::new(&download(), Format::Text, Look::PLAIN, &mut out);
    let ending = follow(receiver, &mut renderer, std::future::ready(())).await.unwrap();
    assert_eq!(ending, Ending::Cancelled);
    assert!(sender.is_closed());
    insta::assert_snapshot!("cancelled", String::from_utf8(transcript.0.lock().unwrap().clone()).unwrap());
}
