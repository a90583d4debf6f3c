//! A download that names an origin: from the swarm and the origin together, or, where nobody holds the file yet, from the
//! origin alone, by one of all the peers that want it; the others wait and get it from that one.
//!
//! An origin is one more owner of a content that is known: the driver of a large content asks it for runs like any owner, and each
//! chunk is verified. Where nobody gives a chunk map, and for contents of one chunk that nobody gives, the whole is
//! fetched in one piece and compared with the content id before it gets its name. Where no id is known, what came is what
//! it is: this peer says so by sharing it.
//!
//! [`super::unheld`] fetches, [`crate::origin::bid`] decides whose turn it is; this asks and waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use potluck_common::chunk::MIN_CHUNK_LEN;
use potluck_common::protocol::Owner;
use potluck_common::{ContentId, SharePath};
use tokio::sync::mpsc;

use super::job::{Downloads, tell};
use super::moving::OnlyHere;
use super::owners::explain;
use super::partial::Target;
use super::pattern::{Pattern, parse_pattern};
use super::plan::{Item, Plan, item_of_content, put};
use super::unheld::Unheld;
use crate::origin::bid::{Bid, Stage, Step, begins, next_step};
use crate::origin::url::OriginUrl;
use crate::verb::{Download, Event, Failed, FailureKind, From};
use crate::wire::origin_client::{Origin, OriginError};
use crate::wire::tracker_client::AskError;

/// Bids asked for: as many as a tracker names.
const MAX_BIDDERS: usize = 200;
/// A bid is listed as a part of a content of two chunks.
const BID_LEN: u64 = 2 * MIN_CHUNK_LEN;
/// Between two looks while nobody fetches yet.
const BIDDING: Duration = Duration::from_millis(250);
/// A tracker that does not list our bid for so long takes none of our announces.
const BID_PATIENCE: Duration = Duration::from_secs(10);

/// Which file is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    /// What it is called, and what it gets as its name if nobody holds it.
    path: SharePath,
    /// What was typed, if that could be a name too.
    verbatim: Option<SharePath>,
    /// What its content id starts with; all of it, if a content was named.
    digits: Option<String>,
    /// Whether the user named it, and not only the origin.
    is_named: bool,
}

/// Reads what was asked for.
fn wish(request: &Download, url: &OriginUrl) -> Result<Wish, Failed> {
    let usage = |message: String, hint: &str| Err(Failed::new(FailureKind::Usage, message, hint));
    if request.from != From::All {
        return usage("--origin is one owner besides all others".into(), "Leave --single and --from away.");
    }
    let text = match request.names.as_slice() {
        [] => match url.file_name() {
            Some(path) => return Ok(Wish { path, verbatim: None, digits: None, is_named: false }),
            None => {
                return usage(
                    format!("{url} does not end in a name that a file can have"),
                    "Say what it is to be called: download NAME --origin URL",
                );
            }
        },
        [text] => text,
        names => {
            return usage(
                format!("an origin is one file, and {} names were given", names.len()),
                "Give one NAME or none.",
            );
        }
    };
    let named = |path, verbatim, digits| Ok(Wish { path, verbatim, digits, is_named: true });
    match parse_pattern(text) {
        Ok(Pattern::Content(id)) => {
            let id = id.to_string();
            let path = url.file_name().or_else(|| id.parse().ok()).expect("64 digits are a share path");
            named(path, None, Some(id))
        }
        Ok(Pattern::Name { name, version: Some((path, digits)), .. }) => named(path, Some(name), Some(digits)),
        Ok(Pattern::Name { name, version: None, .. }) => named(name, None, None),
        Ok(Pattern::Folder(_)) => {
            usage(format!("an origin is one file, and {text} a folder"), "Name the file: download NAME --origin URL")
        }
        // What is no pattern may still be a name.
        Err(error) => match text.parse() {
            Ok(path) => named(path, None, None),
            Err(_) => usage(format!("{text:?} names no file: {error}"), "show lists names."),
        },
    }
}

impl Downloads {
    /// Does what a `download` with an origin asks for, telling each step.
    ///
    /// # Errors
    /// If it could not be fetched.
    pub(super) async fn run_with_origin(
        &self,
        request: &Download,
        url: &OriginUrl,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), Failed> {
        let wish = wish(request, url)?;
        let bid = url.bid_id(&wish.path);
        let lock = self.moving.lock_of(bid);
        // Another download of ours may just have brought it: who waited here looks again.
        let only_here: OnlyHere = Arc::new(lock.lock_owned().await);
        let mut bidding = Bidding { downloads: self, id: bid, mine: None, unlisted_since: None };
        let (mut is_our_turn, mut has_waited) = (false, false);
        let unheld = |wanted| Unheld { request, url, path: &wish.path, bid, wanted, only_here: &only_here };
        loop {
            match self.listed(&wish, events).await {
                Ok(Some(item)) => {
                    bidding.tell(None);
                    let item = Item { target: put(item.target, request.output.as_deref())?, ..item };
                    let id = item.content_id.to_string();
                    let outcome = self.with_swarm(item, &wish, url, has_waited, events).await;
                    return match outcome {
                        Err(failed) if is_worth_the_origin(&failed) => {
                            let message = format!("{}; so it is fetched from {}", failed.message, url.host());
                            tell(events, Event::Notice { message }).await;
                            self.fetch_unheld(&unheld(Some(&id)), events).await
                        }
                        outcome => outcome,
                    };
                }
                Ok(None) if is_our_turn => return self.fetch_unheld(&unheld(wish.digits.as_deref()), events).await,
                Ok(None) => {}
                Err(failed) if failed.kind == FailureKind::Unreachable => {
                    let message = format!("{}; so the origin is asked without asking others", failed.message);
                    tell(events, Event::Notice { message }).await;
                    return self.fetch_unheld(&unheld(wish.digits.as_deref()), events).await;
                }
                Err(failed) => return Err(failed),
            }
            // Elsewhere than in the share folder it would be of no use to the others.
            match bidding.look(request.output.is_none()).await {
                // Whoever fetched it before may have ended since we looked, so look once more.
                Turn::Ours => is_our_turn = true,
                Turn::Nobodys => tokio::time::sleep(BIDDING.min(self.config.owners_refresh)).await,
                Turn::Of(owner) => {
                    if !has_waited {
                        let message =
                            format!("{} is fetching it from {}; it comes from there then", owner.name, url.host());
                        tell(events, Event::Notice { message }).await;
                    }
                    has_waited = true;
                    tokio::time::sleep(self.config.owners_refresh).await;
                }
            }
        }
    }

    /// What the swarm holds of it.
    async fn listed(&self, wish: &Wish, events: &mpsc::Sender<Event>) -> Result<Option<Item>, Failed> {
        let id = wish.digits.as_deref().and_then(|digits| digits.parse::<ContentId>().ok());
        if let Some(id) = id {
            return match self.content_info(id).await {
                Ok(info) => Ok(Some(item_of_content(&info))),
                Err(AskError::NotFound) => Ok(None),
                Err(error) => Err(explain(&error, "it")),
            };
        }
        for (name, digits) in [(wish.verbatim.as_ref(), None), (Some(&wish.path), wish.digits.as_deref())] {
            let Some(name) = name else { continue };
            let info = match self.directory.file(name).await {
                Ok(info) => info,
                Err(AskError::NotFound) => continue,
                Err(error) => return Err(explain(&error, name.as_str())),
            };
            let mut plan = Plan::default();
            plan.take_named(name.as_str(), info, digits);
            if let Some(item) = plan.items.pop() {
                return Ok(Some(item));
            }
            match plan.unresolved.pop() {
                Some(unresolved) if unresolved.why.kind != FailureKind::NotFound => {
                    let (name, candidates) = (unresolved.name, unresolved.candidates);
                    tell(events, Event::Ambiguous { name, candidates }).await;
                    return Err(unresolved.why);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Fetches what somebody holds: from its owners, and if it was named, from the origin with them.
    async fn with_swarm(
        &self,
        mut item: Item,
        wish: &Wish,
        url: &OriginUrl,
        has_waited: bool,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), Failed> {
        // Who waited for another peer knows where it is from, and the origin has given it once.
        if !has_waited {
            match Origin::ask(url, self.config.origin_timeout).await {
                Ok(origin) => match origin.facts.len.filter(|len| *len != item.len) {
                    Some(len) if !wish.is_named => return Err(another_file(&item, url, len)),
                    Some(len) => {
                        let message = format!("{url} has {len} bytes, {} has {}: it is not asked", item.name, item.len);
                        tell(events, Event::Notice { message }).await;
                    }
                    None if !wish.is_named => {}
                    None if origin.facts.gives_ranges => item.origin = Some(Arc::new(origin)),
                    None => {
                        let message = format!("{url} gives no ranges: it is asked only if nobody else gives the file");
                        tell(events, Event::Notice { message }).await;
                    }
                },
                Err(error) => {
                    let message = format!("{url} gives nothing: {error}; it is fetched from others");
                    tell(events, Event::Notice { message }).await;
                }
            }
        }
        tell(events, Event::Planned { n_files: 1, n_bytes: item.len }).await;
        self.one_of_many(item, &From::All, events, true).await
    }
}

/// Whether an origin may have what the swarm does not give.
const fn is_worth_the_origin(failed: &Failed) -> bool {
    matches!(failed.kind, FailureKind::Unreachable | FailureKind::NotFound | FailureKind::Unverified)
}

fn another_file(item: &Item, url: &OriginUrl, len: u64) -> Failed {
    Failed::new(
        FailureKind::Usage,
        format!("the swarm has another file called {}: of {} bytes, where {url} has {len}", item.name, item.len),
        "Give the one of the origin a name of its own: download NAME --origin URL",
    )
}

/// An error of an origin in words for a person.
pub(super) fn explain_origin(url: &OriginUrl, error: &OriginError) -> Failed {
    let (kind, hint) = match error {
        OriginError::Unreachable(_) => {
            (FailureKind::Unreachable, "Run the same command again later; what is there is kept.")
        }
        OriginError::Untrusted(_) => (
            FailureKind::Unreachable,
            "If you trust it all the same, name the file with its certificate: SSL_CERT_FILE=FILE, for the peer that runs.",
        ),
        OriginError::NotFound(_) => (FailureKind::NotFound, "Check the address."),
        OriginError::Forbidden(_) => (
            FailureKind::Failed,
            "If it wants a login, write it into the address: https://USER:PASSWORD@HOST/…, or fetch the file otherwise and share it.",
        ),
        OriginError::Wrong(_) => (FailureKind::Failed, "Check the address; curl -I shows what it answers."),
        OriginError::Redirect(_) => (FailureKind::Failed, "Give the address it leads to, if you trust that one."),
    };
    Failed::new(kind, format!("{url} gives nothing: {error}"), hint)
}

/// Our bid for an origin; it ends with this.
struct Bidding<'a> {
    downloads: &'a Downloads,
    id: ContentId,
    mine: Option<Stage>,
    unlisted_since: Option<Instant>,
}

/// Whose turn it is to fetch.
enum Turn {
    Ours,
    /// Somebody else's, who fetches or is about to.
    Of(Owner),
    /// That is not decided yet.
    Nobodys,
}

impl Bidding<'_> {
    fn tell(&mut self, stage: Option<Stage>) {
        if self.mine != stage {
            self.mine = stage;
            self.downloads.library.set_partial(self.id, BID_LEN, stage.map_or(0, Stage::n_chunks));
        }
    }

    /// Looks who else bids, and does what follows from it.
    async fn look(&mut self, may_bid: bool) -> Turn {
        let me = self.downloads.who.peer_id();
        let (owners, all_named) = match self.downloads.directory.content(self.id, MAX_BIDDERS).await {
            Ok(info) => {
                let all_named = info.owners.len() as u64 >= info.n_owners + info.n_partial;
                (info.owners, all_named)
            }
            Err(AskError::NotFound) => (Vec::new(), true),
            // Nobody can be asked: better twice than not at all.
            Err(_) => return Turn::Ours,
        };
        let bids = owners.iter().filter(|owner| !owner.complete);
        let bids: Vec<_> = bids.map(|owner| Bid { peer: owner.peer_id, stage: Stage::of(owner.n_chunks) }).collect();
        let other = begins(me, &bids);
        if may_bid {
            match next_step(me, self.mine, &bids, all_named) {
                Step::Fetch => return Turn::Ours,
                Step::Bid(stage) => self.tell(Some(stage)),
                Step::Withdraw => self.tell(None),
                Step::Wait => {}
            }
        } else if other.is_none() {
            return Turn::Ours;
        }
        if let Some(owner) = owners.into_iter().find(|owner| Some(owner.peer_id) == other) {
            return Turn::Of(owner);
        }
        let is_listed = self.mine.is_none() || bids.iter().any(|bid| bid.peer == me);
        let since = *self.unlisted_since.get_or_insert_with(Instant::now);
        if is_listed {
            self.unlisted_since = None;
        } else if since.elapsed() >= BID_PATIENCE {
            return Turn::Ours;
        }
        Turn::Nobodys
    }
}

impl Drop for Bidding<'_> {
    fn drop(&mut self) {
        self.tell(None);
    }
}

/// Where the file of an origin goes that nobody holds.
pub(super) fn target_of(path: &SharePath, request: &Download) -> Result<Target, Failed> {
    put(Target::Share(path.clone()), request.output.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant() {
        let id = ContentId::of(b"x").to_string();
        let check = |names: &[&str], url: &str, want: Option<(&str, Option<&str>, bool)>| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let request = Download { names, ..Download::default() };
            let got = wish(&request, &url.parse().unwrap()).ok();
            let got = got.as_ref().map(|wish| (wish.path.as_str(), wish.digits.as_deref(), wish.is_named));
            assert_eq!(got, want, "{request:?} {url}");
        };
        check(&[], "https://h/a/film.mkv?x", Some(("film.mkv", None, false)));
        check(&[], "https://h/", None);
        check(&[], "https://h/%2e%2e%2fx", None);
        check(&["films/f.mkv"], "https://h/", Some(("films/f.mkv", None, true)));
        check(&["f@beef"], "https://h/x", Some(("f", Some("beef"), true)));
        check(&[&id], "https://h/x", Some(("x", Some(&id), true)));
        check(&[&id], "https://h/", Some((&id, Some(&id), true)));
        check(&["[x"], "https://h/", Some(("[x", None, true)));
        for bad in [&["a", "b"][..], &["films/"], &["../x"], &["."], &["/etc/passwd"]] {
            check(bad, "https://h/x", None);
        }
        let single = Download { from: From::Single, ..Download::default() };
        assert_eq!(wish(&single, &"https://h/x".parse().unwrap()).unwrap_err().kind, FailureKind::Usage);
    }
}
