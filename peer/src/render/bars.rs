//! Progress bars on a terminal: one for each of up to [`MOST_BARS`] files, and one line for all when there are several.
//!
//! Bars are drawn on standard error. Whatever is printed beside them is printed within [`Bars::aside`], or it would be
//! overwritten.

use std::collections::HashMap;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::escape;
use super::tally::Tally;
use super::units::{count, fit, percent, rate, size, time_left};
use crate::verb::{Event, Transfer};

/// More files than this are only counted in the line for all.
pub const MOST_BARS: usize = 8;
/// A terminal that does not tell its width.
const USUAL_WIDTH: u16 = 80;
/// What the numbers beside a bar take: see [`Bars::columns`].
const NUMBERS_WIDTH: usize = 49;
/// The same where there is little room.
const FEW_NUMBERS_WIDTH: usize = 15;
/// Below this there is little room.
const NARROW: usize = NUMBERS_WIDTH + 21;

/// The bars of one download.
pub struct Bars {
    multi: MultiProgress,
    files: HashMap<String, ProgressBar>,
    all: Option<ProgressBar>,
    width: usize,
}

impl Bars {
    /// On standard error, which is a terminal.
    pub fn on_stderr() -> Self {
        let width = Term::stderr().size_checked().map(|(_, columns)| columns).filter(|columns| *columns > 0);
        Self::on(ProgressDrawTarget::stderr(), width.unwrap_or(USUAL_WIDTH))
    }

    /// On any terminal.
    pub fn on(target: ProgressDrawTarget, width: u16) -> Self {
        let multi = MultiProgress::with_draw_target(target);
        Self { multi, files: HashMap::new(), all: None, width: width.into() }
    }

    /// Takes in one event, which `tally` has taken in before.
    pub fn on_event(&mut self, event: &Event, tally: &Tally) {
        match event {
            Event::Planned { .. } if tally.n_files > 1 && self.all.is_none() => {
                self.all = Some(self.multi.add(self.bar(tally.n_bytes)));
            }
            Event::Progress(transfer) => {
                if let Some(bar) = self.bar_of(transfer) {
                    bar.set_position(transfer.n_bytes);
                    bar.set_message(self.numbers(transfer));
                }
            }
            Event::Finished(crate::verb::Finished { name, .. }) | Event::Unfinished { name, .. } => {
                if let Some(bar) = self.files.remove(name) {
                    bar.finish_and_clear();
                    self.multi.remove(&bar);
                }
            }
            _ => return,
        }
        if let Some(all) = &self.all {
            let here = tally.bytes_here();
            all.set_length(tally.n_bytes);
            all.set_position(here);
            all.set_prefix(fit(&format!("{}/{} files", tally.n_over, tally.n_files), self.name_width()));
            let left = eta(tally.n_bytes.saturating_sub(here), tally.rate());
            let percent = percent(here, tally.n_bytes);
            all.set_message(self.columns(percent, tally.n_bytes, &rate(tally.rate()), "", &left));
        }
    }

    /// Prints something while the bars are out of the way.
    pub fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        self.multi.suspend(print)
    }

    /// Takes all bars away.
    pub fn clear(&mut self) {
        // A terminal that is gone needs no clearing.
        let _ = self.multi.clear();
        // Bars that are dropped one by one draw those that are left once more; not any more.
        self.multi.set_draw_target(ProgressDrawTarget::hidden());
        self.files.clear();
        self.all = None;
    }

    fn bar_of(&mut self, transfer: &Transfer) -> Option<ProgressBar> {
        if let Some(bar) = self.files.get(&transfer.name) {
            return Some(bar.clone());
        }
        if self.files.len() >= MOST_BARS {
            return None;
        }
        let new = self.bar(transfer.len);
        new.set_prefix(fit(&escape(&transfer.name), self.name_width()));
        let new = match &self.all {
            Some(all) => self.multi.insert_before(all, new),
            None => self.multi.add(new),
        };
        self.files.insert(transfer.name.clone(), new.clone());
        Some(new)
    }

    fn numbers_width(&self) -> usize {
        if self.width < NARROW { FEW_NUMBERS_WIDTH } else { NUMBERS_WIDTH }
    }

    fn name_width(&self) -> usize {
        let room = self.width.saturating_sub(self.numbers_width() + 2);
        (room * 3 / 5).clamp(10, 40)
    }

    fn bar(&self, len: u64) -> ProgressBar {
        let taken = self.name_width() + self.numbers_width() + 2;
        let bar_width = self.width.saturating_sub(taken).max(1);
        let template = format!("{{prefix}} {{bar:{bar_width}.green/dim}} {{msg}}");
        let style = ProgressStyle::with_template(&template).expect("the template is a constant but for a number");
        let hidden = ProgressDrawTarget::hidden();
        ProgressBar::with_draw_target(Some(len), hidden).with_style(style.progress_chars("━╸─"))
    }

    fn numbers(&self, transfer: &Transfer) -> String {
        match &transfer.waiting {
            Some(why) => {
                let text = format!("{:>3}% {}", percent(transfer.n_bytes, transfer.len), escape(why));
                fit(&text, self.numbers_width())
            }
            None if transfer.len == 0 => fit(&super::table::progress(transfer), self.numbers_width()),
            None => {
                let left = eta(transfer.len.saturating_sub(transfer.n_bytes), transfer.rate);
                let owners = count(transfer.n_owners.into(), "owner", "owners");
                let percent = percent(transfer.n_bytes, transfer.len);
                self.columns(percent, transfer.len, &rate(transfer.rate), &owners, &left)
            }
        }
    }

    /// Numbers in columns of their own, so that bars do not change their length as digits come and go.
    fn columns(&self, percent: u64, len: u64, rate: &str, owners: &str, left: &str) -> String {
        if self.width < NARROW {
            return format!("{percent:>3}% {rate:>10}");
        }
        format!("{percent:>3}% {:>8} {rate:>10} {owners:>9} {left:>14}", size(len))
    }
}

fn eta(n_bytes: u64, rate: u64) -> String {
    time_left(n_bytes, rate).map(|left| format!("ETA {left}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;
    use indicatif::InMemoryTerm;

    fn screen(width: u16, events: &[Event]) -> String {
        let term = InMemoryTerm::new(12, width);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), 255);
        let (mut bars, mut tally) = (Bars::on(target, width), Tally::default());
        for event in events {
            tally.on_event(event);
            bars.on_event(event, &tally);
        }
        for bar in bars.files.values().chain(&bars.all) {
            bar.force_draw();
        }
        let contents = term.contents();
        bars.clear();
        assert_eq!(term.contents(), "", "nothing stays behind");
        contents
    }

    #[test]
    fn three_files() {
        let events = sample::download();
        insta::assert_snapshot!("three_files_100", screen(100, &events[..4]));
        insta::assert_snapshot!("three_files_80", screen(80, &events[..4]));
        insta::assert_snapshot!("three_files_40", screen(40, &events[..4]));
        insta::assert_snapshot!("one_left_80", screen(80, &events[..6]));
    }

    #[test]
    fn many_files() {
        let mut events = vec![Event::Planned { n_files: 200, n_bytes: 200 << 20 }];
        for n in 0..20 {
            events.push(Event::Progress(sample::transfer(&format!("folder/{n}"), n, 1 << 20, 1 << 19, None)));
        }
        insta::assert_snapshot!("many_files_80", screen(80, &events));
    }
}
