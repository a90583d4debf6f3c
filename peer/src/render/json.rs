//! Events as JSON for programs: what lists or shows gives one object, the other verbs one event a line.
//!
//! A failure is always a last line `{"event":"failed",…}`. What cannot be shown on a terminal is written `\uXXXX`, which
//! is the same JSON.

use std::collections::HashMap;
use std::io;

use serde::Serialize;

use super::escape::is_shown_as_itself;
use super::out::Out;
use crate::verb::{Event, ShownFile, Verb};

/// What one verb prints.
pub struct Json {
    /// The files of all pages, for `show`.
    files: Option<Vec<ShownFile>>,
    /// Whether the answer is one object, and so has no last line when all went well.
    is_object: bool,
}

impl Json {
    /// For the answer to `verb`.
    pub fn new(verb: &Verb) -> Self {
        let files = matches!(verb, Verb::Show { .. }).then(Vec::new);
        let is_object = matches!(
            verb,
            Verb::Show { .. }
                | Verb::Peers
                | Verb::Status
                | Verb::Getip { .. }
                | Verb::Limit { .. }
                | Verb::Sync { .. }
                | Verb::Conflicts { .. }
                | Verb::Trash { .. }
        );
        Self { files, is_object }
    }

    /// Prints one event, or keeps it.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn on_event(&mut self, event: &Event, out: &mut Out) -> io::Result<()> {
        match (event, &mut self.files) {
            (Event::Files { files }, Some(gathered)) => {
                gathered.extend_from_slice(files);
                Ok(())
            }
            (Event::Done, Some(gathered)) => out.result(&line(&Shown { files: gathered, next: None })),
            (Event::Peers { peers }, _) => out.result(&line(&HashMap::from([("peers", peers)]))),
            (Event::Addresses { addresses }, _) => out.result(&line(&HashMap::from([("addresses", addresses)]))),
            (Event::Limits(limits), _) => out.result(&line(limits)),
            (Event::Sync(sync), _) => out.result(&line(sync)),
            (Event::Conflicts { conflicts }, _) => out.result(&line(&HashMap::from([("conflicts", conflicts)]))),
            (Event::Trash { items }, _) => out.result(&line(&HashMap::from([("items", items)]))),
            (Event::Status(status), _) => out.result(&line(status)),
            (Event::Done, _) if self.is_object => Ok(()),
            // An answer of one object has no room for it.
            (Event::Notice { message }, _) if self.is_object => {
                out.remark(&format!("note: {}", super::escape(message)));
                Ok(())
            }
            (event, _) => out.result(&line(event)),
        }
    }
}

/// The answer to `show`, in the shape of the tracker's `/v1/files`.
#[derive(Serialize)]
struct Shown<'a> {
    files: &'a [ShownFile],
    next: Option<String>,
}

pub(super) fn line(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("events are plain data with text keys");
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_shown_as_itself(c) {
            line.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                line += &format!("\\u{unit:04x}");
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_the_same_json() {
        for text in ["plain é 日本", "a\u{202e}b\u{9b}c\u{7f}", "\u{e0041}\u{a0}", "\"\\\n"] {
            let line = line(&text);
            assert!(line.chars().all(is_shown_as_itself), "{line}");
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }
    }
}
