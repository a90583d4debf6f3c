//! From what was typed to what is to be fetched: asks the tracker which contents the names stand for.

use potluck_common::chunk::MIN_CHUNK_LEN;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use potluck_common::protocol::{ContentInfo, ContentOwners, FileInfo, FileSummary, Owner};
use potluck_common::register::FileValue;
use potluck_common::{ContentId, PeerId, SharePath};

use super::job::Downloads;
use super::owners::explain;
use super::partial::{GoesOn, Target};
use super::pattern::{Pattern, parse_pattern};
use crate::discovery::gathered::FilesQuery;
use crate::verb::{Candidate, Download, Failed, FailureKind};
use crate::wire::origin_client::Origin;
use crate::wire::tracker_client::AskError;

/// One content to be fetched.
#[derive(Debug, Clone)]
pub struct Item {
    /// What it is called to the person who asked.
    pub name: String,
    /// Which content.
    pub content_id: ContentId,
    /// Its length as the tracker says.
    pub len: u64,
    /// Where it goes.
    pub target: Target,
    /// Its owners, where the answer of the tracker named them.
    pub owners: Option<Vec<Arc<Owner>>>,
    /// The modification time and executable bit that it gets, where these are synced.
    pub dress: Option<FileValue>,
    /// What gives it besides owners, in ranges.
    pub origin: Option<Arc<Origin>>,
    /// What becomes of it after a restart in the middle of it.
    pub goes_on: GoesOn,
}

/// A name that stands for no content, or for several.
#[derive(Debug, Clone)]
pub struct Unresolved {
    /// What was typed, or a name below a folder that was.
    pub name: String,
    /// What could be meant.
    pub candidates: Vec<Candidate>,
    /// Why.
    pub why: Failed,
}

/// What a download comes to.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be fetched.
    pub items: Vec<Item>,
    /// Not to be had.
    pub unresolved: Vec<Unresolved>,
    /// Owners that items have in common: of a hundred thousand files, each knows its owners and none holds their names.
    owners: HashMap<PeerId, Arc<Owner>>,
}

/// Names in one page of the tracker's list.
const PAGE: usize = 2_000;
/// Owners asked for with each name of a page: enough to spread many small files, few enough to keep pages small. A large
/// file asks for all of its owners by itself.
const OWNERS_EACH: usize = 6;
/// Names suggested for one that is not there.
const MAX_SUGGESTIONS: usize = 3;

impl Downloads {
    /// Resolves everything that was typed.
    ///
    /// # Errors
    /// If the tracker does not answer, or the request makes no sense as a whole.
    pub(super) async fn plan(&self, request: &Download) -> Result<Plan, Failed> {
        let mut plan = Plan::default();
        if request.names.is_empty() {
            return Err(Failed::new(FailureKind::Usage, "no name was given", "download NAME…; show lists names."));
        }
        for text in &request.names {
            self.resolve(text, &mut plan).await?;
        }
        if let Some(output) = &request.output {
            if !output.is_dir() && plan.items.len() + plan.unresolved.len() > 1 {
                return Err(no_folder(output));
            }
            for item in &mut plan.items {
                item.target = put(item.target.clone(), Some(output))?;
            }
        }
        // The same file may be meant twice: by its name and by a glob.
        let mut seen = std::collections::HashSet::new();
        plan.items.retain(|item| seen.insert((item.content_id, item.target.clone())));
        Ok(plan)
    }

    async fn resolve(&self, text: &str, plan: &mut Plan) -> Result<(), Failed> {
        let pattern = match parse_pattern(text) {
            Ok(pattern) => pattern,
            Err(error) => {
                let why =
                    Failed::new(FailureKind::Usage, format!("{text:?} names no file: {error}"), "show lists names.");
                plan.unresolved.push(Unresolved { name: text.to_owned(), candidates: Vec::new(), why });
                return Ok(());
            }
        };
        match pattern {
            Pattern::Content(id) => match self.content_info(id).await {
                Ok(info) => plan.items.push(item_of_content(&info)),
                Err(error) => plan.fail(text, &error)?,
            },
            Pattern::Folder(folder) => {
                let prefix = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
                self.resolve_many(text, &prefix, |_| true, plan).await?;
            }
            Pattern::Name { name, version, glob } => match self.file_info(&name).await {
                Ok(info) => plan.take_named(text, info, None),
                Err(AskError::NotFound) => match (version, glob) {
                    (Some((name, digits)), _) => match self.file_info(&name).await {
                        Ok(info) => plan.take_named(text, info, Some(&digits)),
                        Err(error) => plan.fail(text, &error)?,
                    },
                    (None, Some(glob)) => {
                        self.resolve_many(text, glob.prefix(), |path| glob.matches(path), plan).await?;
                    }
                    (None, None) => {
                        let mut why = explain(&AskError::NotFound, &format!("a file named {name}"));
                        if let Some(hint) = self.suggest(&name).await {
                            why.hint = hint;
                        }
                        plan.unresolved.push(Unresolved { name: text.to_owned(), candidates: Vec::new(), why });
                    }
                },
                Err(error) => return Err(explain(&error, text)),
            },
        }
        Ok(())
    }

    async fn file_info(&self, name: &SharePath) -> Result<FileInfo, AskError> {
        self.directory.file(name).await
    }

    /// Everything below a prefix that is wanted.
    async fn resolve_many(
        &self,
        text: &str,
        prefix: &str,
        wanted: impl Fn(&SharePath) -> bool,
        plan: &mut Plan,
    ) -> Result<(), Failed> {
        let mut query =
            FilesQuery { prefix: prefix.into(), limit: PAGE, n_owners: OWNERS_EACH, ..FilesQuery::default() };
        let before = plan.items.len() + plan.unresolved.len();
        loop {
            let page = self.directory.files(&query).await;
            let page = page.map_err(|error| explain(&error, text))?;
            if page.files.n_refused > 0 {
                tracing::warn!(
                    n = page.files.n_refused,
                    "the tracker lists names that no share folder can have; they are left out"
                );
            }
            for file in page.files.items.into_iter().filter(|file| wanted(&file.path)) {
                plan.take_listed(file);
            }
            match page.next {
                Some(next) if next > query.after => query.after = next,
                _ => break,
            }
        }
        if plan.items.len() + plan.unresolved.len() == before {
            plan.fail(text, &AskError::NotFound)?;
        }
        Ok(())
    }

    async fn suggest(&self, name: &SharePath) -> Option<String> {
        let query = FilesQuery { contains: name.file_name().into(), limit: MAX_SUGGESTIONS, ..FilesQuery::default() };
        let found = self.directory.files(&query).await.ok()?;
        let names: Vec<_> = found.files.items.iter().map(|file| file.path.to_string()).collect();
        (!names.is_empty()).then(|| format!("Did you mean {}?", names.join(" or ")))
    }
}

/// Where something goes: where it would, or to `output`, a file or a folder that exists.
pub(super) fn put(target: Target, output: Option<&Path>) -> Result<Target, Failed> {
    let Some(output) = output else { return Ok(target) };
    let into_folder = output.is_dir();
    if !into_folder && output.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(no_folder(output));
    }
    Ok(match target {
        Target::Share(path) if into_folder => Target::Elsewhere(output.join(path.file_name())),
        _ => Target::Elsewhere(output.to_owned()),
    })
}

fn no_folder(output: &Path) -> Failed {
    Failed::new(
        FailureKind::Usage,
        format!("there is no folder {} for the download to go to", output.display()),
        format!("Make it first: mkdir -p {}", output.display()),
    )
}

pub(super) fn item_of_content(info: &ContentInfo) -> Item {
    let name = info.names.items.first().cloned();
    // Without a name it goes under its id, which is a fine name.
    let path = name.unwrap_or_else(|| info.content_id.to_string().parse().expect("64 digits are a share path"));
    Item {
        name: path.to_string(),
        content_id: info.content_id,
        len: info.len,
        target: Target::Share(path),
        owners: Some(info.owners.iter().cloned().map(Arc::new).collect()),
        dress: None,
        origin: None,
        goes_on: GoesOn::ByItself,
    }
}

impl Plan {
    /// A name that is not there, or a tracker that is not there at all.
    fn fail(&mut self, text: &str, error: &AskError) -> Result<(), Failed> {
        let why = explain(error, text);
        if !matches!(error, AskError::NotFound) {
            return Err(why);
        }
        self.unresolved.push(Unresolved { name: text.to_owned(), candidates: Vec::new(), why });
        Ok(())
    }

    /// One name, of which perhaps only the content whose id starts with `digits` is meant.
    pub(super) fn take_named(&mut self, text: &str, info: FileInfo, digits: Option<&str>) {
        let path = info.path;
        let fits =
            |content: &ContentOwners| digits.is_none_or(|digits| content.content_id.to_string().starts_with(digits));
        let mut contents: Vec<_> = merged(info.contents).into_iter().filter(fits).collect();
        if contents.len() == 1
            && let Some(content) = contents.pop()
        {
            self.items.push(Item {
                name: path.to_string(),
                content_id: content.content_id,
                len: content.len,
                target: Target::Share(path),
                owners: Some(content.owners.into_iter().map(Arc::new).collect()),
                dress: None,
                origin: None,
                goes_on: GoesOn::ByItself,
            });
            return;
        }
        let why = if contents.is_empty() {
            let what = digits
                .map_or_else(|| path.to_string(), |digits| format!("{path} with an id that starts with {digits}"));
            explain(&AskError::NotFound, &what)
        } else {
            ambiguous(&path, contents.len())
        };
        let now_ms = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis()).unwrap_or(0);
        let candidates = contents.into_iter().map(|content| Candidate {
            content_id: content.content_id,
            len: content.len,
            age_ms: now_ms.saturating_sub(content.since_ms),
            ask_for: format!("{path}@{}", content.content_id.short()),
            owners: content.owners,
        });
        self.unresolved.push(Unresolved { name: text.to_owned(), candidates: candidates.collect(), why });
    }

    /// A name of a folder or glob.
    fn take_listed(&mut self, mut file: FileSummary) {
        let mut seen = std::collections::HashSet::new();
        file.contents.retain(|content| seen.insert(content.content_id));
        match file.contents.as_slice() {
            [content] => {
                let knows = content.len <= MIN_CHUNK_LEN && !content.owners.is_empty();
                let owners = content.owners.iter().map(|owner| shared(&mut self.owners, owner));
                let owners = knows.then(|| owners.collect());
                self.items.push(Item {
                    name: file.path.to_string(),
                    content_id: content.content_id,
                    len: content.len,
                    target: Target::Share(file.path),
                    owners,
                    dress: None,
                    origin: None,
                    goes_on: GoesOn::ByItself,
                });
            }
            contents => {
                let why = ambiguous(&file.path, contents.len());
                self.unresolved.push(Unresolved { name: file.path.to_string(), candidates: Vec::new(), why });
            }
        }
    }
}

/// One content that is listed with several lengths is one content: all but one of its lengths are lies, and which is true
/// is proven when it is fetched. Otherwise one liar could make every name ambiguous.
fn merged(contents: Vec<ContentOwners>) -> Vec<ContentOwners> {
    let mut places = std::collections::HashMap::<ContentId, usize>::new();
    let mut merged: Vec<ContentOwners> = Vec::new();
    for content in contents {
        match places.entry(content.content_id) {
            Entry::Occupied(place) => merged[*place.get()].owners.extend(content.owners),
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push(content);
            }
        }
    }
    merged
}

/// The one that is known, if it is said to be the same.
fn shared(known: &mut HashMap<PeerId, Arc<Owner>>, owner: &Owner) -> Arc<Owner> {
    match known.entry(owner.peer_id) {
        Entry::Occupied(known) if **known.get() == *owner => known.get().clone(),
        entry => entry.insert_entry(Arc::new(owner.clone())).get().clone(),
    }
}

fn ambiguous(path: &SharePath, n: usize) -> Failed {
    Failed::new(
        FailureKind::Usage,
        format!("{path} stands for {n} different contents"),
        format!("Say which one: download {path}@ID-PREFIX, with an id that show {path} gives."),
    )
}
