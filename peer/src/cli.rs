//! The command line: flags, their environment variables, verbs, and help that shows what to type.
//!
//! What is checked here is checked before anything starts, and ends with exit code 2: names, addresses and URLs that
//! cannot be right. Whether anybody answers there is not asked.

mod examples;
mod global;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use potluck_common::protocol::SyncMode;
use potluck_common::settings::{Effective, Scope, Settings};

pub use self::global::Global;
use self::global::START_FLAGS;
use crate::command::alias;
use crate::limit::schedule::Limit;
use crate::manuals::Shell;
use crate::origin::url::OriginUrl;
use crate::verb::{Direction, Download, From, LimitChange, SyncChange, Verb};

/// Share a folder, and fetch what others share, from every owner at once.
#[derive(Debug, Parser)]
#[command(name = "potluck", version, after_help = examples::PROGRAM, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    /// For every verb.
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
    /// The settings that hold, for `config`.
    #[arg(skip)]
    pub effective: Option<Effective>,
}

/// Settings of a peer stand in the table `[peer]`; the flags of `up` are settings too.
const SCOPE: Scope = Scope { table: "peer", verb: Some("up") };

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run the peer: share the folder and serve others, until Ctrl-C or `stop`
    #[command(after_help = examples::UP)]
    Up {
        /// Keep the share folder the same as those of all other peers that sync
        #[arg(long, env = "POTLUCK_SYNC", value_name = "HOW", value_enum)]
        sync: Option<SyncHow>,
        /// With --sync receive: only what matches this glob; repeat it for several
        #[arg(long, value_name = "GLOB")]
        include: Vec<String>,
        /// With --sync receive: nothing that matches this glob; repeat it for several
        #[arg(long, value_name = "GLOB")]
        exclude: Vec<String>,
        /// How many days the trash keeps what sync deleted or overwrote here; the oldest goes earlier if it fills a tenth of
        /// the disk, but nothing within a day
        #[arg(long, env = "POTLUCK_TRASH_DAYS", value_name = "DAYS", default_value_t = 30,
            value_parser = clap::value_parser!(u32).range(1..=36_500))]
        trash_days: u32,
        /// Run this program for each file that has come
        #[arg(long, env = "POTLUCK_ON_COMPLETE", value_name = "PROG")]
        on_complete: Option<PathBuf>,
    },
    /// Open the interactive shell; reads commands from standard input when that is not a terminal
    Shell,
    /// List files known to the tracker: name, size, owners, whether we hold them
    #[command(after_help = examples::SHOW)]
    Show {
        /// A part of the name, a glob, or a folder with a trailing slash
        pattern: Option<String>,
    },
    /// Fetch files from all their owners at once
    #[command(after_help = examples::DOWNLOAD)]
    Download {
        /// Names, globs, folders with a trailing slash, content ids, or NAME@ID-PREFIX
        #[arg(required_unless_present = "origin", value_name = "NAME")]
        names: Vec<String>,
        /// From this http(s) URL as well, or from it alone if nobody holds the file yet; without a NAME, the one it ends in
        #[arg(long, value_name = "URL", conflicts_with_all = ["single", "from"])]
        origin: Option<OriginUrl>,
        /// From one owner only, whichever that is
        #[arg(long, conflicts_with = "from")]
        single: bool,
        /// From the peer of this name or id only
        #[arg(long, value_name = "PEER")]
        from: Option<String>,
        /// Where to put it: a file's path, or a folder that exists
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
        /// Run this program for each file, with its path, content id and length; no shell is involved
        #[arg(long, value_name = "PROG")]
        on_complete: Option<PathBuf>,
    },
    /// Print our own address, a peer's, or those of a file's owners
    Getip {
        /// A peer's name or id, or a file's name
        #[arg(value_name = "PEER or NAME")]
        target: Option<String>,
    },
    /// List the peers that are there
    Peers,
    /// Show what this peer is doing: transfers, rates, trackers
    Status,
    /// Show or change what the running peer sends and receives at most
    #[command(after_help = examples::LIMIT)]
    Limit {
        /// Which of the two to change
        #[arg(requires = "rate")]
        direction: Option<Way>,
        /// The limit from now on
        rate: Option<Limit>,
    },
    /// Show how folder sync stands, or change how the running peer syncs
    #[command(after_help = examples::SYNC)]
    Sync {
        /// What to change; without it, shows how sync stands
        change: Option<SyncWord>,
    },
    /// List names under which several versions stand
    Conflicts {
        /// Only what matches: a part of the name, a glob, or a folder with a trailing slash
        pattern: Option<String>,
    },
    /// List what sync deleted or overwrote here, or bring it back
    #[command(args_conflicts_with_subcommands = true, after_help = examples::TRASH)]
    Trash {
        /// Only what matches: a part of the name, a glob, or a folder with a trailing slash
        pattern: Option<String>,
        /// What to do, if not to list
        #[command(subcommand)]
        action: Option<TrashAction>,
    },
    /// Wait until this peer holds all files of the synced folder (for scripts)
    #[command(after_help = examples::WAIT)]
    Wait {
        /// Only what matches: a part of the name, a glob, or a folder with a trailing slash
        pattern: Option<String>,
        /// Until every peer that syncs holds them
        #[arg(long)]
        all: bool,
    },
    /// Print content ids of what we share, for `b3sum --check`
    #[command(after_help = examples::MANIFEST)]
    Manifest {
        /// Only what matches: a part of the name, a glob, or a folder with a trailing slash
        pattern: Option<String>,
        /// Of what the tracker lists, whoever has it
        #[arg(long)]
        everybody: bool,
    },
    /// Print content ids of any files, as b3sum does; no peer is needed
    Hash {
        /// Files; - is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Look at folder, disk, limits, trackers, clock and ports, and say what to mend
    #[command(after_help = examples::DOCTOR)]
    Doctor,
    /// Print the settings that hold, and where each is from
    #[command(after_help = examples::CONFIG)]
    Config,
    /// Print the script that completes potluck in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the man pages
    Man {
        /// Into this folder, made if missing
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Hash again what we share, and say what is damaged
    Verify {
        /// Only what matches: a part of the name, a glob, or a folder with a trailing slash
        pattern: Option<String>,
    },
    /// End the running peer of the share folder
    Stop,
}

/// What `trash` does besides listing.
#[derive(Debug, Subcommand)]
pub enum TrashAction {
    /// Bring files back to where they stood
    Restore {
        /// Where they stood, or what they are called in the trash
        #[arg(required = true, value_name = "NAME")]
        items: Vec<String>,
    },
}

/// How to sync, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyncHow {
    /// Give changes and take those of others
    Both,
    /// Only give
    Send,
    /// Only take
    Receive,
}

/// What `sync` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyncWord {
    /// Give changes and take those of others
    Both,
    /// Only give
    Send,
    /// Only take
    Receive,
    /// Do not sync any more
    Off,
    /// The deletes that were held back are meant
    Confirm,
    /// They are not: bring those files back
    Restore,
}

impl SyncHow {
    /// The same for a peer.
    pub const fn mode(self) -> SyncMode {
        match self {
            Self::Both => SyncMode::Both,
            Self::Send => SyncMode::Send,
            Self::Receive => SyncMode::Receive,
        }
    }
}

impl SyncWord {
    const fn change(self) -> SyncChange {
        match self {
            Self::Both => SyncChange::Mode(SyncMode::Both),
            Self::Send => SyncChange::Mode(SyncMode::Send),
            Self::Receive => SyncChange::Mode(SyncMode::Receive),
            Self::Off => SyncChange::Off,
            Self::Confirm => SyncChange::Confirm,
            Self::Restore => SyncChange::Restore,
        }
    }
}

/// A direction as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// What is sent
    Up,
    /// What is received
    Down,
}

impl Cli {
    /// What was typed; with help, a version or a mistake the process ends.
    pub fn of_process() -> Self {
        let args: Vec<_> = std::env::args_os().collect();
        let settings = Settings::of(&Self::command(), SCOPE, &args, |name| std::env::var_os(name));
        settings
            .map_err(clap::Error::from)
            .and_then(|settings| Self::of(&args, &settings))
            .unwrap_or_else(|error| with_alias(error).exit())
    }

    fn of(args: &[OsString], settings: &Settings) -> Result<Self, clap::Error> {
        let command = settings.under(Self::command(), SCOPE);
        let matches = command.clone().try_get_matches_from(args)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut Self::command()))?;
        let after_verb = matches.subcommand().map(|(_, matches)| matches);
        let is_typed = |matches: &ArgMatches, id| matches.value_source(id) == Some(ValueSource::CommandLine);
        let is_typed = |id| is_typed(&matches, id) || after_verb.is_some_and(|matches| is_typed(matches, id));
        let typed = START_FLAGS.into_iter().filter(|(id, _)| is_typed(*id)).map(|(_, flag)| flag);
        cli.global.typed_for_start = typed.collect();
        if matches!(cli.action, Action::Config) {
            cli.effective = Some(settings.effective(&command, SCOPE, args)?);
        }
        Ok(cli)
    }
}

impl Action {
    /// The verb for a peer, if this is one; what runs a peer or needs none is not. Paths are taken from the folder `base`.
    pub fn verb(self, base: &Path) -> Option<Verb> {
        Some(match self {
            Self::Up { .. }
            | Self::Shell
            | Self::Hash { .. }
            | Self::Doctor
            | Self::Config
            | Self::Completions { .. }
            | Self::Man { .. } => return None,
            Self::Show { pattern } => Verb::Show { pattern },
            Self::Download { names, origin, single, from, output, .. } => {
                let from = match (single, from) {
                    (true, _) => From::Single,
                    (false, Some(peer)) => From::Peer(peer),
                    (false, None) => From::All,
                };
                Verb::Download(Download { names, from, output: output.map(|path| base.join(path)), origin })
            }
            Self::Getip { target } => Verb::Getip { target },
            Self::Peers => Verb::Peers,
            Self::Status => Verb::Status,
            Self::Limit { direction, rate } => {
                let direction = direction.map(|way| match way {
                    Way::Up => Direction::Up,
                    Way::Down => Direction::Down,
                });
                Verb::Limit { change: direction.zip(rate).map(|(direction, limit)| LimitChange { direction, limit }) }
            }
            Self::Sync { change } => Verb::Sync { change: change.map(SyncWord::change) },
            Self::Conflicts { pattern } => Verb::Conflicts { pattern },
            Self::Trash { action: Some(TrashAction::Restore { items }), .. } => Verb::Restore { items },
            Self::Trash { pattern, action: None } => Verb::Trash { pattern },
            Self::Wait { pattern, all } => Verb::Wait { pattern, all },
            Self::Manifest { pattern, everybody } => Verb::Manifest { pattern, swarm: everybody },
            Self::Verify { pattern } => Verb::Verify { pattern },
            Self::Stop => Verb::Stop,
        })
    }
}

/// Whoever types `ls` or `get` is told which verb is meant, as in the shell.
fn with_alias(mut error: clap::Error) -> clap::Error {
    let meant = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => alias(word).filter(|verb| Cli::command().find_subcommand(verb).is_some()),
        _ => None,
    };
    if let Some(verb) = meant {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![verb.to_owned()]));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::of(
            &[&["potluck"], line].concat().into_iter().map(OsString::from).collect::<Vec<_>>(),
            &Settings::default(),
        )
    }

    #[test]
    fn verbs() {
        let check = |line: &[&str], want: Option<Verb>| {
            assert_eq!(parse(line).unwrap().action.verb(Path::new("/here")), want, "{line:?}");
        };
        let download = |names: &[&str], from, output: Option<&str>| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Some(Verb::Download(Download { names, from, output: output.map(PathBuf::from), origin: None }))
        };
        let with_origin = |names: &[&str], url: &str| {
            let (names, origin) = (names.iter().map(|name| (*name).to_owned()).collect(), Some(url.parse().unwrap()));
            Some(Verb::Download(Download { names, origin, ..Download::default() }))
        };
        check(&["download", "--origin", "https://h/x"], with_origin(&[], "https://h/x"));
        check(&["download", "a", "--origin=http://h"], with_origin(&["a"], "http://h"));
        check(&["up"], None);
        check(&["show"], Some(Verb::Show { pattern: None }));
        check(&["show", "--json", "--", "--option"], Some(Verb::Show { pattern: Some("--option".into()) }));
        check(&["download", "a", "b/"], download(&["a", "b/"], From::All, None));
        check(&["download", "--", "--single", "-x"], download(&["--single", "-x"], From::All, None));
        check(&["download", "--single", "a", "-o", "x"], download(&["a"], From::Single, Some("/here/x")));
        check(
            &["download", "--from", "node2", "a", "-o", "/x"],
            download(&["a"], From::Peer("node2".into()), Some("/x")),
        );
        let limit = |direction, limit: &str| {
            Some(Verb::Limit { change: Some(LimitChange { direction, limit: limit.parse().unwrap() }) })
        };
        check(&["limit"], Some(Verb::Limit { change: None }));
        check(&["limit", "up", "10M"], limit(Direction::Up, "10M"));
        check(&["limit", "down", "1M, 200M@22-06"], limit(Direction::Down, "1M,200M@22-06"));
        check(&["limit", "down", "off"], limit(Direction::Down, "off"));
        check(&["sync"], Some(Verb::Sync { change: None }));
        check(&["sync", "receive"], Some(Verb::Sync { change: Some(SyncChange::Mode(SyncMode::Receive)) }));
        check(&["sync", "restore"], Some(Verb::Sync { change: Some(SyncChange::Restore) }));
        check(&["trash"], Some(Verb::Trash { pattern: None }));
        check(&["trash", "*.txt"], Some(Verb::Trash { pattern: Some("*.txt".into()) }));
        check(&["trash", "restore", "a", "b"], Some(Verb::Restore { items: vec!["a".into(), "b".into()] }));
        check(&["wait", "--all", "x/"], Some(Verb::Wait { pattern: Some("x/".into()), all: true }));
        check(&["stop", "--share", "/y"], Some(Verb::Stop));
    }

    #[test]
    fn usage_errors() {
        for line in [
            &["download"][..],
            &["download", "--single", "--from", "b", "a"],
            &["download", "--option"],
            &["download", "--origin", "ftp://h/x"],
            &["download", "--origin", "h/x"],
            &["download", "a", "--origin", "http://h/x", "--single"],
            &["download", "a", "--origin", "http://h/x", "--from", "b"],
            &["show", "a", "b"],
            &["peers", "--name", "a/b"],
            &["peers", "--name", ""],
            &["peers", "--tracker", "https://x"],
            &["peers", "--listen", "7700"],
            &["peers", "--advertise", "http://x"],
            &["limit", "up"],
            &["limit", "10M"],
            &["limit", "up", "10"],
            &["up", "--limit-up", "10MB"],
            &["up", "--limit-down", "10M@8"],
            &["fetch", "x"],
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
        assert_eq!(parse(&[]).unwrap_err().kind(), clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    }

    #[test]
    fn what_people_type_elsewhere() {
        let check = |word: &str, want: Option<&str>| {
            let said = with_alias(parse(&[word]).unwrap_err()).to_string();
            let tip = said.lines().find_map(|line| line.trim().strip_prefix("tip: a similar subcommand exists: "));
            assert_eq!(tip, want, "{said}");
        };
        check("ls", Some("'show'"));
        check("get", Some("'download'"));
        check("shwo", Some("'show'"));
        check("quit", None); // Of the shell only.
    }

    #[test]
    fn help() {
        // The environment of the test must not show.
        let command = || Cli::command().term_width(100).mut_args(|arg| arg.hide_env_values(true));
        insta::assert_snapshot!("help", command().render_long_help());
        let mut all = command();
        all.build();
        for verb in ["up", "download", "show", "sync", "trash", "limit", "config"] {
            let verb_help = all.find_subcommand_mut(verb).unwrap().render_long_help();
            insta::assert_snapshot!(format!("help_{verb}"), verb_help);
        }
    }

    #[test]
    fn flags_that_a_running_peer_ignores() {
        let check = |line: &[&str], want: Option<&str>| {
            assert_eq!(parse(line).unwrap().global.ignored().as_deref(), want, "{line:?}");
        };
        check(&["show", "--share", "/s", "--json"], None);
        check(&["show", "--name", "n"], Some("--name does nothing here: a peer runs on this folder already"));
        check(
            &["--listen", "127.0.0.1:0", "peers", "--tracker", "a", "--tracker", "b"],
            Some("--tracker, --listen do nothing here: a peer runs on this folder already"),
        );
        check(
            &["--limit-up", "1M", "status"],
            Some("--limit-up does nothing here: a peer runs on this folder already; `potluck limit` changes limits"),
        );
    }

    #[test]
    fn the_peer_is_told() {
        let cli =
            parse(&["up", "--share", "/s", "--name", "n", "--tracker", "a:1", "--tracker", "http://b:2"]).unwrap();
        let config = cli.global.config().unwrap();
        assert_eq!((config.limit_up, config.limit_down), (Limit::OFF, Limit::OFF));
        let limited = parse(&["up", "--limit-up", "10M", "--limit-down", "200M@08-18"]).unwrap().global;
        assert_eq!((limited.limit_up.to_string(), limited.limit_down.to_string()), ("10M".into(), "200M@08-18".into()));
        assert_eq!((config.share, config.name.as_str()), (PathBuf::from("/s"), "n"));
        assert_eq!(config.trackers, ["http://a:1", "http://b:2"]);
    }
}
