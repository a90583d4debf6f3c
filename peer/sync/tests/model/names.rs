//! What the histories call things: names and contents by short texts.

use potluck_common::conflict_name::{Step, conflict_name};
use potluck_common::{ContentId, SharePath};

pub(crate) fn path(text: &str) -> SharePath {
    text.parse().unwrap()
}

pub(crate) fn content(text: &str) -> ContentId {
    ContentId::of(text.as_bytes())
}

/// The name of a copy that has lost against another version of `name`.
pub(crate) fn copy(name: &str, text: &str) -> SharePath {
    conflict_name(&path(name), &content(text), Step::default()).unwrap()
}
