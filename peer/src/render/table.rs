//! Tables of files, peers, addresses and candidates, and the sheet of `status`.
//!
//! On a terminal a table is as wide as the terminal and long names wrap; in a pipe every row is one line and nothing
//! is cut, so that `awk` and `sort` work.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use super::look::{FAINT, GOOD, Look, ODD, STRONG};
use super::units::{age, count, percent, rate, size};
use super::{escape, units};
use crate::verb::{Address, Candidate, Held, LimitStatus, LimitsStatus, RefusedPaths, ShownFile, Status, Transfer};
use crate::wire::announce::MEND_REACH;
use potluck_common::protocol::PeerInfo;

/// What `show` prints: one row for each content, its name on each of them.
pub fn files(files: &[ShownFile], look: &Look) -> String {
    let mut rows = Vec::new();
    for file in files {
        for content in &file.contents {
            let summary = &content.summary;
            let owners = match summary.n_partial {
                0 => summary.n_owners.to_string(),
                n => format!("{} + {n} partial", summary.n_owners),
            };
            let held = match content.held {
                Held::Complete => "✓",
                Held::Partial => "part",
                Held::None => "-",
            };
            let name = escape(file.path.as_str()).into_owned();
            rows.push(vec![name, size(summary.len), owners, held.to_owned(), summary.content_id.short()]);
        }
    }
    let columns = [
        Column::name("NAME"),
        Column::right("SIZE"),
        Column::left("OWNERS"),
        Column::left("HELD"),
        Column::left("CONTENT"),
    ];
    table(&columns, rows, look)
}

/// The line under the table of `show`, on a terminal.
pub fn files_in_all(files: &[ShownFile]) -> String {
    let contents = || files.iter().flat_map(|file| &file.contents);
    let held = contents().filter(|content| content.held == Held::Complete).count() as u64;
    let n_bytes = contents().fold(0u64, |sum, content| sum.saturating_add(content.summary.len));
    let n_contents = contents().count() as u64;
    let mut text = count(files.len() as u64, "file", "files");
    if n_contents > files.len() as u64 {
        text += &format!(" with {n_contents} contents");
    }
    format!("{text}, {}; {held} held here", size(n_bytes))
}

/// What `peers` prints.
pub fn peers(peers: &[PeerInfo], look: &Look) -> String {
    let rows = peers.iter().map(|peer| {
        vec![
            escape(&peer.name).into_owned(),
            host_port(&peer.address, peer.port),
            peer.n_files.to_string(),
            size(peer.n_bytes),
            rate(peer.rates.up),
            rate(peer.rates.down),
            // Without a tracker nobody knows.
            if peer.since_ms == 0 { "-".into() } else { age(look.now_ms.saturating_sub(peer.since_ms)) },
            peer.peer_id.short(),
        ]
    });
    let columns = [
        Column::name("NAME"),
        Column::left("ADDRESS"),
        Column::right("FILES"),
        Column::right("SIZE"),
        Column::right("SENDS"),
        Column::right("RECEIVES"),
        Column::right("HERE FOR"),
        Column::left("ID"),
    ];
    table(&columns, rows, look)
}

/// What `getip` prints.
pub fn addresses(addresses: &[Address], look: &Look) -> String {
    let rows = addresses.iter().map(|address| {
        vec![escape(&address.name).into_owned(), host_port(&address.address, address.port), address.peer_id.short()]
    });
    table(&[Column::name("NAME"), Column::left("ADDRESS"), Column::left("ID")], rows, look)
}

/// What could be meant by an ambiguous name: the first column is what to type.
pub fn candidates(name: &str, candidates: &[Candidate], look: &Look) -> String {
    let rows = candidates.iter().map(|candidate| {
        let owners: Vec<_> = candidate
            .owners
            .iter()
            .map(|owner| format!("{}{}", escape(&owner.name), if owner.complete { "" } else { " (part)" }))
            .collect();
        vec![
            crate::command::quote(&candidate.ask_for),
            size(candidate.len),
            age(candidate.age_ms),
            owners.join(", "),
            candidate.content_id.short(),
        ]
    });
    let columns = [
        Column::name("ASK FOR"),
        Column::right("SIZE"),
        Column::right("KNOWN FOR"),
        Column::name("OWNERS"),
        Column::left("CONTENT"),
    ];
    let several = count(candidates.len() as u64, "content", "different contents");
    format!("{} stands for {several}:\n{}", escape(name), table(&columns, rows, look))
}

/// What stands where a tracker's address would, while none was found.
pub const NO_TRACKER: &str = "none found yet on this network";

/// What `status` prints.
pub fn status(status: &Status, look: &Look) -> String {
    let mut lines = Vec::new();
    let mut line =
        |key: &str, value: String| lines.push(format!("{} {value}", look.paint(FAINT, &units::fit(key, 10))));
    line("peer", format!("{} ({})", look.paint(STRONG, &escape(&status.name)), status.peer_id));
    line("address", escape(&status.base_url).into_owned());
    line("share", escape(&status.share.display().to_string()).into_owned());
    for (index, tracker) in status.trackers.iter().enumerate() {
        let state = match (tracker.reachable, tracker.reaches_us) {
            (true, Some(false)) => look.paint(ODD, "answers, but cannot reach this peer"),
            (true, _) => look.paint(GOOD, "answers"),
            (false, _) => look.paint(ODD, "does not answer"),
        };
        line(if index == 0 { "tracker" } else { "" }, format!("{} {state}", escape(&tracker.url)));
        if let Some(RefusedPaths { n_paths, path, why }) = &tracker.refuses {
            let n_paths = count(*n_paths, "path", "paths");
            let why = format!(
                "it does not take {n_paths} of the synced folder, as {}: {}",
                escape(path.as_str()),
                escape(why)
            );
            line("", look.paint(ODD, &why));
        }
    }
    if status.trackers.is_empty() {
        line("tracker", look.paint(ODD, NO_TRACKER));
    }
    if status.trackers.iter().any(|tracker| tracker.reaches_us == Some(false)) {
        line("", format!("so others hardly can: {MEND_REACH}"));
    }
    let mut files = format!("{}, {}", count(status.n_files, "file", "files"), size(status.n_bytes));
    if status.n_hashing > 0 {
        files += &format!(", {} still being hashed", status.n_hashing);
    }
    if status.n_skipped > 0 {
        files += &format!(", {} that cannot be shared", status.n_skipped);
    }
    line("shares", files);
    let uploads = if status.n_uploads > 0 {
        format!(", {}", count(status.n_uploads, "upload", "uploads"))
    } else {
        String::new()
    };
    line("sends", format!("{}{uploads}{}", rate(status.rates.up), at_most(&status.limits.up)));
    line("receives", format!("{}{}", rate(status.rates.down), at_most(&status.limits.down)));
    for (index, transfer) in status.downloads.iter().enumerate() {
        line(if index == 0 { "downloads" } else { "" }, format!("{}  {}", escape(&transfer.name), progress(transfer)));
    }
    lines.join("\n")
}

/// What `limit` prints.
pub fn limits(limits: &LimitsStatus, look: &Look) -> String {
    let line = |key: &str, status: &LimitStatus| {
        let mut now = status.rate.map_or_else(|| "no limit".to_owned(), |limit| rate(limit.get()));
        if status.limit.has_hours() {
            now += &format!(" now ({})", status.limit);
        }
        format!("{} {now}", look.paint(FAINT, &units::fit(key, 4)))
    };
    [line("up", &limits.up), line("down", &limits.down)].join("\n")
}

/// What is said of a limit beside a rate, if there is one.
fn at_most(status: &LimitStatus) -> String {
    match (status.rate, status.limit.has_hours()) {
        (None, false) => String::new(),
        (Some(limit), false) => format!(", at most {}", rate(limit.get())),
        (Some(limit), true) => format!(", at most {} now ({})", rate(limit.get()), status.limit),
        (None, true) => format!(", no limit now ({})", status.limit),
    }
}

/// How a transfer stands, in words: `45% of 43 MiB, 12 MiB/s, 3 owners, 2.1 s left`.
pub fn progress(transfer: &Transfer) -> String {
    let mut text = match transfer.len {
        0 => format!("{} so far", size(transfer.n_bytes)),
        len => format!("{}% of {}", percent(transfer.n_bytes, len), size(len)),
    };
    if let Some(why) = &transfer.waiting {
        return format!("{text}, waiting: {}", escape(why));
    }
    text += &format!(", {}, {}", rate(transfer.rate), count(transfer.n_owners.into(), "owner", "owners"));
    match units::time_left(transfer.len.saturating_sub(transfer.n_bytes), transfer.rate) {
        Some(left) => format!("{text}, {left} left"),
        None => text,
    }
}

fn host_port(host: &str, port: u16) -> String {
    let host = escape(host);
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// One column of a table.
pub(super) struct Column {
    title: &'static str,
    alignment: CellAlignment,
    wraps: bool,
}

impl Column {
    /// A column that may wrap when the terminal is narrow.
    pub(super) const fn name(title: &'static str) -> Self {
        Self { title, alignment: CellAlignment::Left, wraps: true }
    }

    /// A column on the left.
    pub(super) const fn left(title: &'static str) -> Self {
        Self { title, alignment: CellAlignment::Left, wraps: false }
    }

    /// One of numbers.
    pub(super) const fn right(title: &'static str) -> Self {
        Self { title, alignment: CellAlignment::Right, wraps: false }
    }
}

/// Rows under a header, as wide as the terminal.
pub(super) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>, look: &Look) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    table.set_header(columns.iter().map(|column| Cell::new(column.title).set_alignment(column.alignment)));
    for row in rows {
        table.add_row(
            row.into_iter().zip(columns).map(|(text, column)| Cell::new(text).set_alignment(column.alignment)),
        );
    }
    let has_columns_for = columns.iter().filter(|column| !column.wraps).count() * 10;
    match look.width {
        Some(width) if usize::from(width) > has_columns_for + 10 => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            for (index, _) in columns.iter().enumerate().filter(|(_, column)| !column.wraps) {
                if let Some(column) = table.column_mut(index) {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
            }
        }
        // No terminal, or one too narrow for any layout: rows as long as they are.
        _ => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut lines = table.lines().map(|line| line.trim_end().to_owned());
    let header = lines.next().map(|header| look.paint(STRONG, &header));
    header.into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    fn wide(width: u16) -> Look {
        Look { terminal: true, width: Some(width), now_ms: sample::NOW_MS, ..Look::PLAIN }
    }

    #[test]
    fn files_in_a_pipe_and_on_terminals() {
        let sample = sample::files();
        insta::assert_snapshot!("files_plain", files(&sample, &Look::PLAIN));
        insta::assert_snapshot!("files_80", files(&sample, &wide(80)));
        insta::assert_snapshot!("files_52", files(&sample, &wide(52)));
        insta::assert_snapshot!("files_20", files(&sample, &wide(20)));
        assert_eq!(files_in_all(&sample), "5 files with 6 contents, 4.2 GiB; 2 held here");
        for line in files(&sample, &wide(60)).lines() {
            assert!(console::measure_text_width(line) <= 60, "{line}");
        }
    }

    #[test]
    fn others() {
        insta::assert_snapshot!("peers", peers(&sample::peers(), &wide(100)));
        let mut remembered = sample::peers();
        remembered.iter_mut().for_each(|peer| peer.since_ms = 0);
        assert!(!peers(&remembered, &wide(100)).contains(" d "), "since 1970");
        insta::assert_snapshot!("addresses", addresses(&sample::addresses(), &Look::PLAIN));
        insta::assert_snapshot!("candidates", candidates("notes.txt", &sample::candidates(), &wide(100)));
        insta::assert_snapshot!("status", status(&sample::status(), &Look::PLAIN));
        let alone = Status { trackers: Vec::new(), ..sample::status() };
        assert!(status(&alone, &Look::PLAIN).contains("tracker    none found yet on this network\n"));
        insta::assert_snapshot!("limits", limits(&sample::limits(), &Look::PLAIN));
    }
}
