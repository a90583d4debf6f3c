//! What a download comes to while it runs, and in one line when it is over.
//!
//! Facts come in as events and the time as an argument; text goes out.

use std::collections::HashMap;
use std::time::Duration;

use super::escape;
use super::units::{count, duration, mean_rate, size};
use crate::verb::{Contribution, Event, Transfer};

/// Counts of one download of any number of files.
#[derive(Debug, Default)]
pub struct Tally {
    /// Files asked for.
    pub n_files: u64,
    /// Their lengths in all.
    pub n_bytes: u64,
    /// Files that are over, well or badly.
    pub n_over: u64,
    n_finished: u64,
    n_here_already: u64,
    n_failed: u64,
    finished_bytes: u64,
    from: Vec<Contribution>,
    running: HashMap<String, Transfer>,
}

impl Tally {
    /// Takes in one event of the answer.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::Planned { n_files, n_bytes } => {
                self.n_files += n_files;
                self.n_bytes += n_bytes;
            }
            Event::Progress(transfer) => {
                self.running.insert(transfer.name.clone(), transfer.clone());
            }
            Event::Finished(finished) => {
                self.running.remove(&finished.name);
                self.n_over += 1;
                self.n_finished += 1;
                self.n_here_already += u64::from(finished.from.is_empty() && finished.len > 0);
                self.finished_bytes = self.finished_bytes.saturating_add(finished.len);
                for contribution in &finished.from {
                    self.on_contribution(contribution);
                }
            }
            Event::Unfinished { name, .. } => {
                self.running.remove(name);
                self.n_over += 1;
                self.n_failed += 1;
            }
            _ => {}
        }
    }

    fn on_contribution(&mut self, contribution: &Contribution) {
        match self.from.iter_mut().find(|known| known.name == contribution.name) {
            Some(known) => known.n_bytes = known.n_bytes.saturating_add(contribution.n_bytes),
            None => self.from.push(contribution.clone()),
        }
    }

    /// Bytes that are here now, of files that are over and files that run.
    pub fn bytes_here(&self) -> u64 {
        self.running.values().fold(self.finished_bytes, |sum, transfer| sum.saturating_add(transfer.n_bytes))
    }

    /// Bytes a second lately, of all files.
    pub fn rate(&self) -> u64 {
        self.running.values().fold(0, |sum, transfer| sum.saturating_add(transfer.rate))
    }

    /// The line at the end; nothing if only one file was asked for.
    pub fn summary(&self, elapsed: Duration) -> Option<String> {
        if self.n_files < 2 || self.n_over == 0 {
            return None;
        }
        let fetched = self.from.iter().fold(0u64, |sum, contribution| sum.saturating_add(contribution.n_bytes));
        let mut text = format!("{}, {}", count(self.n_finished, "file", "files"), size(self.finished_bytes));
        if fetched > 0 {
            text += &format!(": {} in {}", size(fetched), duration(elapsed));
            text += &mean_rate(fetched, elapsed).map(|rate| format!(" ({rate})")).unwrap_or_default();
            text += &format!(" from {}", contributions(&self.from));
        }
        for (n, what) in [
            (self.n_here_already, "here already"),
            (self.n_failed, "not fetched"),
            (self.n_files.saturating_sub(self.n_over), "not begun or not finished"),
        ] {
            if n > 0 {
                text += &format!("; {n} {what}");
            }
        }
        Some(text)
    }
}

/// `node2 21 MiB, node3 22 MiB`, the largest first, at most six by name.
pub fn contributions(from: &[Contribution]) -> String {
    const BY_NAME: usize = 6;
    let mut sorted: Vec<_> = from.iter().collect();
    sorted.sort_by(|a, b| b.n_bytes.cmp(&a.n_bytes).then_with(|| a.name.cmp(&b.name)));
    let mut parts: Vec<_> =
        sorted.iter().take(BY_NAME).map(|given| format!("{} {}", escape(&given.name), size(given.n_bytes))).collect();
    if let Some(others) = sorted.get(BY_NAME..).filter(|others| !others.is_empty()) {
        let n_bytes = others.iter().fold(0u64, |sum, given| sum.saturating_add(given.n_bytes));
        parts.push(format!("{} {}", count(others.len() as u64, "other", "others"), size(n_bytes)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn a_download_of_three() {
        let mut tally = Tally::default();
        let events = sample::download();
        events[..4].iter().for_each(|event| tally.on_event(event));
        assert_eq!((tally.bytes_here(), tally.rate(), tally.n_over), (46 << 20, 20 << 20, 0));
        assert_eq!(tally.summary(Duration::from_secs(5)), None);
        events[4..].iter().for_each(|event| tally.on_event(event));
        insta::assert_snapshot!("summary", tally.summary(Duration::from_secs(5)).unwrap());
    }

    #[test]
    fn one_file_needs_no_summary() {
        let mut tally = Tally::default();
        tally.on_event(&Event::Planned { n_files: 1, n_bytes: 5 });
        tally.on_event(&Event::Finished(sample::finished("a", 1, 5, 1, &[("node2", 5)])));
        assert_eq!(tally.summary(Duration::from_secs(1)), None);
    }

    #[test]
    fn many_owners() {
        let from: Vec<_> = (0..9u64).map(|n| Contribution { name: format!("node{n}"), n_bytes: n << 20 }).collect();
        assert_eq!(
            contributions(&from),
            "node8 8.0 MiB, node7 7.0 MiB, node6 6.0 MiB, node5 5.0 MiB, node4 4.0 MiB, node3 3.0 MiB, 3 others 3.0 MiB"
        );
    }
}
