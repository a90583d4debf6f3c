//! What the verbs of folder sync print: how it stands, conflicts, the trash, what is waited for.

use potluck_common::protocol::SyncMode;

use super::escape;
use super::look::{FAINT, GOOD, Look, ODD};
use super::table::{Column, table};
use super::units::{age, count, fit, size};
use crate::verb::{Conflict, SyncStatus, TrashItem};

/// What `sync` prints.
pub fn sync(sync: &SyncStatus, look: &Look) -> String {
    let mut lines = Vec::new();
    let mut line = |key: &str, text: String| lines.push(format!("{} {text}", look.paint(FAINT, &fit(key, 10))));
    let Some(mode) = sync.mode else {
        return "this peer does not sync; sync both keeps its folder the same as everybody's".into();
    };
    line("sync", mode.to_string());
    line("folder", count(sync.n_files, "file", "files"));
    line("to do", if sync.n_to_do == 0 { look.paint(GOOD, "nothing") } else { count(sync.n_to_do, "step", "steps") });
    if sync.n_conflicts > 0 {
        line("conflicts", format!("{}; conflicts lists them", count(sync.n_conflicts, "name", "names")));
    }
    if let Some(why) = &sync.paused {
        line("paused", look.paint(ODD, &escape(why)));
    }
    if sync.n_held > 0 {
        let held = count(sync.n_held, "delete is", "deletes are");
        line(
            "held back",
            look.paint(ODD, &format!("{held} not passed on: sync confirm if meant, sync restore if not")),
        );
    }
    for (index, trouble) in sync.troubles.iter().enumerate() {
        let text = format!("{}: {}", escape(trouble.path.as_str()), escape(&trouble.why));
        line(if index == 0 { "trouble" } else { "" }, text);
    }
    for (index, peer) in sync.peers.iter().enumerate() {
        let lacks = match peer.n_lacking {
            0 => look.paint(GOOD, "has everything"),
            n => format!("lacks {}, {}", count(n, "file", "files"), size(peer.n_bytes_lacking)),
        };
        let mode = if peer.mode == SyncMode::Both { String::new() } else { format!(" ({})", peer.mode) };
        line(if index == 0 { "peers" } else { "" }, format!("{}{mode} {lacks}", escape(&peer.name)));
    }
    lines.join("\n")
}

/// What `conflicts` prints: each name, and its versions below it.
pub fn conflicts(conflicts: &[Conflict], look: &Look) -> String {
    let mut lines = Vec::new();
    for conflict in conflicts {
        lines.push(escape(conflict.path.as_str()).into_owned());
        for version in &conflict.versions {
            let what = match version.content_id {
                None => "folder".to_owned(),
                Some(id) => format!("{}  {}", size(version.len), look.paint(FAINT, &id.short())),
            };
            lines.push(format!("  {}  {what}", escape(version.path.as_str())));
        }
    }
    lines.join("\n")
}

/// What `trash` prints.
pub fn trash(items: &[TrashItem], look: &Look) -> String {
    let rows = items.iter().map(|item| {
        vec![
            item.path.as_ref().map_or("?".into(), |path| escape(path.as_str()).into_owned()),
            size(item.len),
            item.why.as_deref().map_or("?".into(), |why| why.replace('_', " ")),
            item.since_ms.map_or("?".into(), |since| age(look.now_ms.saturating_sub(since))),
            escape(&item.item).into_owned(),
        ]
    });
    let columns = [
        Column::name("NAME"),
        Column::right("SIZE"),
        Column::left("WHY"),
        Column::left("SINCE"),
        Column::left("IN THE TRASH AS"),
    ];
    table(&columns, rows, look)
}

/// What `wait` says while it waits.
pub fn lacking(n_files: u64, n_bytes: u64, peers: &[String]) -> String {
    let names: Vec<_> = peers.iter().map(|name| escape(name)).collect();
    format!("waiting for {}, {}, at {}", count(n_files, "file", "files"), size(n_bytes), names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn sheets() {
        insta::assert_snapshot!("sync", sync(&sample::sync(), &Look::PLAIN));
        insta::assert_snapshot!("sync_off", sync(&SyncStatus { mode: None, ..sample::sync() }, &Look::PLAIN));
        insta::assert_snapshot!("conflicts", conflicts(&sample::conflicts(), &Look::PLAIN));
        insta::assert_snapshot!("lacking", lacking(3, 5 << 20, &["node2".into(), "a\u{202e}b".into()]));
        insta::assert_snapshot!("trash", trash(&sample::trash(), &Look { now_ms: sample::NOW_MS, ..Look::PLAIN }));
    }
}
