//! Events as text for people: on a terminal with bars and colours, in a pipe as plain lines.
//!
//! Results go to standard output and can be piped on; remarks, progress and failures go to standard error.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use super::bars::{Bars, MOST_BARS};
use super::echo::NoControlEcho;
use super::look::{BAD, FAINT, GOOD, Look, ODD};
use super::out::Out;
use super::tally::{Tally, contributions};
use super::units::{count, duration, mean_rate, size};
use super::{escape, sheet, table};
use crate::sums;
use crate::verb::{Event, Failed, Finished, ShownFile, Transfer, Verb};

/// Without bars, a running file says how it stands this often, and whenever what it waits for changes.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// What one verb prints.
pub struct Text {
    look: Look,
    bars: Option<Bars>,
    quiet: Option<NoControlEcho>,
    tally: Tally,
    files: Vec<ShownFile>,
    /// What is said at the end if there was nothing to list.
    nothing: Option<String>,
    n_intact: u64,
    n_damaged: u64,
    /// When a running file last said how it stands, and what it waited for.
    said: HashMap<String, (Duration, Option<String>)>,
    last_failure: Option<Failed>,
}

impl Text {
    /// For one verb's answer.
    pub fn new(verb: &Verb, look: Look) -> Self {
        Self {
            look,
            bars: None,
            quiet: None,
            tally: Tally::default(),
            files: Vec::new(),
            nothing: nothing(verb),
            n_intact: 0,
            n_damaged: 0,
            said: HashMap::new(),
            last_failure: None,
        }
    }

    /// Shows one event; `elapsed` since the verb was given.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn on_event(&mut self, event: &Event, elapsed: Duration, out: &mut Out) -> io::Result<()> {
        self.tally.on_event(event);
        if self.look.bars {
            if self.bars.is_none() && matches!(event, Event::Planned { .. }) {
                self.quiet = NoControlEcho::begin();
                self.bars = Some(Bars::on_stderr());
            }
            if let Some(bars) = &mut self.bars {
                bars.on_event(event, &self.tally);
            }
        }
        if event.is_last() {
            self.clear();
        }
        let (result, remark) = self.words(event, elapsed);
        // At the end what failed comes after what came of it.
        let print = || {
            let written = result.map_or(Ok(()), |result| out.result(&result));
            if let Some(remark) = remark {
                out.remark(&remark);
            }
            written
        };
        match &self.bars {
            Some(bars) => bars.aside(print),
            None => print(),
        }
    }

    /// Takes the bars away.
    pub fn clear(&mut self) {
        if let Some(mut bars) = self.bars.take() {
            bars.clear();
        }
        self.quiet = None;
    }

    /// What an event prints: as a result, and as a remark.
    fn words(&mut self, event: &Event, elapsed: Duration) -> (Option<String>, Option<String>) {
        match event {
            Event::Files { files } => {
                self.files.extend_from_slice(files);
                (None, None)
            }
            // As `b3sum --check` reads them: only on a terminal there is something to protect.
            Event::Entries { entries } => {
                if !entries.is_empty() {
                    self.nothing = None;
                }
                let lines = entries.iter().map(|entry| sums::line(entry.content_id, entry.path.as_str()));
                let lines: Vec<_> =
                    lines.map(|line| if self.look.terminal { escape(&line).into_owned() } else { line }).collect();
                ((!lines.is_empty()).then(|| lines.join("\n")), None)
            }
            Event::Peers { peers } if peers.is_empty() => (None, Some("no peers".into())),
            Event::Peers { peers } => (Some(table::peers(peers, &self.look)), None),
            Event::Addresses { addresses } => (Some(table::addresses(addresses, &self.look)), None),
            Event::Status(status) => (Some(table::status(status, &self.look)), None),
            Event::Limits(limits) => (Some(table::limits(limits, &self.look)), None),
            Event::Sync(sync) => (Some(sheet::sync(sync, &self.look)), None),
            Event::Conflicts { conflicts } if conflicts.is_empty() => (None, Some("no conflicts".into())),
            Event::Conflicts { conflicts } => (Some(sheet::conflicts(conflicts, &self.look)), None),
            Event::Trash { items } if items.is_empty() => (None, Some("the trash is empty".into())),
            Event::Trash { items } => (Some(sheet::trash(items, &self.look)), None),
            Event::Restored { path, .. } => {
                (Some(format!("{} {}", self.look.paint(GOOD, "✓"), escape(path.as_str()))), None)
            }
            Event::Lacking { n_files, n_bytes, peers } => (None, Some(sheet::lacking(*n_files, *n_bytes, peers))),
            Event::Names { names } => {
                (Some(names.iter().map(|name| escape(name)).collect::<Vec<_>>().join("\n")), None)
            }
            Event::Ambiguous { name, candidates } => (None, Some(table::candidates(name, candidates, &self.look))),
            Event::Planned { n_files, n_bytes } if *n_files > 1 => {
                (None, Some(format!("{}, {} in all", count(*n_files, "file", "files"), size(*n_bytes))))
            }
            Event::Planned { .. } => (None, None),
            Event::Progress(transfer) => (None, self.progress(transfer, elapsed)),
            Event::Finished(finished) => (Some(self.finished(finished)), None),
            Event::Unfinished { why, .. } => (None, self.failure(why)),
            Event::Verified { path, intact } => {
                self.nothing = None;
                let state = if *intact {
                    self.n_intact += 1;
                    self.look.paint(GOOD, "OK")
                } else {
                    self.n_damaged += 1;
                    self.look.paint(BAD, "DAMAGED")
                };
                (Some(format!("{}: {state}", escape(path.as_str()))), None)
            }
            Event::Notice { message } => {
                self.nothing = None; // It was said why.
                (None, Some(format!("{} {}", self.look.paint(ODD, "note:"), escape(message))))
            }
            Event::Done => {
                let (result, remark) = self.ending(elapsed);
                let nothing = self.nothing.take().filter(|_| result.is_none());
                (result, remark.or(nothing))
            }
            Event::Failed(failed) => {
                let (result, remark) = self.ending(elapsed);
                let remarks: Vec<_> = remark.into_iter().chain(self.failure(failed)).collect();
                (result, (!remarks.is_empty()).then(|| remarks.join("\n")))
            }
        }
    }

    /// What was gathered on the way.
    fn ending(&mut self, elapsed: Duration) -> (Option<String>, Option<String>) {
        let mut remarks = Vec::new();
        let shown = (!self.files.is_empty()).then(|| table::files(&self.files, &self.look));
        if shown.is_some() && self.look.terminal {
            remarks.push(self.look.paint(FAINT, &table::files_in_all(&self.files)));
        }
        if self.n_intact + self.n_damaged > 0 {
            let files = count(self.n_intact + self.n_damaged, "file", "files");
            remarks.push(match self.n_damaged {
                0 => format!("{files} hashed again, all intact"),
                n => format!("{files} hashed again, {n} damaged"),
            });
        }
        // After the table on a terminal, where results and remarks meet.
        let remark = (!remarks.is_empty()).then(|| remarks.join("\n"));
        match (shown, remark) {
            (Some(shown), Some(remark)) => (Some(format!("{shown}\n\n{remark}")), None),
            (None, remark) => (self.tally.summary(elapsed), remark),
            other => other,
        }
    }

    fn progress(&mut self, transfer: &Transfer, elapsed: Duration) -> Option<String> {
        if self.bars.is_some() {
            return None;
        }
        let (since, waiting) = self.said.entry(transfer.name.clone()).or_insert_with(|| (elapsed, None));
        let is_news = *waiting != transfer.waiting;
        if !is_news && elapsed.saturating_sub(*since) < PROGRESS_INTERVAL {
            return None;
        }
        (*since, *waiting) = (elapsed, transfer.waiting.clone());
        Some(format!("{}: {}", escape(&transfer.name), table::progress(transfer)))
    }

    /// A file that is there: size, time, rate, who gave what, where it lies if not under its name, and its id.
    fn finished(&mut self, finished: &Finished) -> String {
        self.said.remove(&finished.name);
        let mut text = format!("{} {}", self.look.paint(GOOD, "✓"), escape(&finished.name));
        if !finished.path.ends_with(&finished.name) {
            text += &format!(" -> {}", escape(&finished.path.display().to_string()));
        }
        let fetched = finished.from.iter().fold(0u64, |sum, given| sum.saturating_add(given.n_bytes));
        let elapsed = Duration::from_millis(finished.elapsed_ms);
        text += &format!("  {}", size(finished.len));
        if finished.from.is_empty() {
            text += if finished.len == 0 { "" } else { ", here already" };
        } else {
            text += &format!(" in {}", duration(elapsed));
            text += &mean_rate(fetched, elapsed).map(|rate| format!(" ({rate})")).unwrap_or_default();
            text += &format!(", from {}", contributions(&finished.from));
        }
        if let Some(before) = finished.len.checked_sub(fetched).filter(|n| *n > 0 && fetched > 0) {
            text += &format!(", here before {}", size(before));
        }
        // The whole id is there to be compared with b3sum; in a long list it would hide everything else.
        match self.tally.n_files {
            0..=1 => format!("{text}\n  {}", self.look.paint(FAINT, &finished.content_id.to_string())),
            n if n <= MOST_BARS as u64 => {
                format!("{text}  {}", self.look.paint(FAINT, &finished.content_id.to_string()))
            }
            _ => text,
        }
    }

    /// A failure and its hint, unless exactly that was said just before.
    fn failure(&mut self, failed: &Failed) -> Option<String> {
        if self.last_failure.as_ref() == Some(failed) {
            return None;
        }
        let is_same_hint = self.last_failure.as_ref().is_some_and(|last| last.hint == failed.hint);
        self.last_failure = Some(failed.clone());
        let mut failed = failed.clone();
        if is_same_hint {
            failed.hint.clear();
        }
        Some(failure(&failed, &self.look))
    }
}

/// What a list says that has nothing in it.
fn nothing(verb: &Verb) -> Option<String> {
    Some(match verb {
        Verb::Show { pattern: Some(pattern) } => {
            format!("no file matches {}; `show` alone lists all there are", escape(pattern))
        }
        Verb::Show { pattern: None } | Verb::Manifest { pattern: None, swarm: true } => {
            "nobody shares a file yet; what a peer has in its share folder is listed here".into()
        }
        Verb::Manifest { pattern: None, swarm: false } | Verb::Verify { pattern: None } => {
            "nothing is shared here yet; put files into the share folder".into()
        }
        _ => return None,
    })
}

/// A failure in words: what happened, and what to do next.
pub fn failure(failed: &Failed, look: &Look) -> String {
    let mut text = format!("{} {}", look.paint(BAD, "error:"), escape(&failed.message));
    if !failed.hint.is_empty() {
        text += &format!("\n{} {}", look.paint(FAINT, "hint:"), escape(&failed.hint));
    }
    text
}
