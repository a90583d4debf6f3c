//! The command line: flags, their environment variables, verbs, and help that shows what to type.
//!
//! What is checked here is checked before anything starts, and ends with exit code 2: names, addresses and URLs that
//! cannot be right. Whether anybody answers there is not asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use potluck_common::address::Advertise;
use potluck_common::protocol::is_valid_name;

use crate::config::Config;
use crate::verb::{Download, Failed, FailureKind, From, Verb};

/// Where a tracker is looked for when nothing is said.
const DEFAULT_TRACKER: &str = "http://127.0.0.1:7700";

// Lines of 80 columns at most: clap would wrap longer ones in the middle of an example.
const EXAMPLES: &str = "\
Examples:
  potluck up --share ~/music --tracker nas:7700   share a folder, until Ctrl-C
  potluck show                                    what everybody has
  potluck download film.mkv                       from all owners at once
  potluck download 'photos/*.jpg' docs/           globs and whole folders
  potluck shell                                   all this at a prompt

Verbs act through the peer that is running on the share folder; if there is
none, one is started for as long as the verb lasts.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 tracker or owners
unreachable, 5 nothing that verifies, 6 no space, 130 interrupted.";

const DOWNLOAD_EXAMPLES: &str = "\
Examples:
  potluck download film.mkv                by name, from every owner at once
  potluck download 'photos/*.jpg' docs/    by glob, and a whole folder
  potluck download notes.txt@3f2a9c41      one of several contents under a name
  potluck download af1349b9f5f9…f3262      by content id, as b3sum prints it
  potluck download -o /tmp/ film.mkv       put it elsewhere
  potluck download --from node2 film.mkv   from that one peer only
  potluck download -- --option             a name that looks like a flag

Every byte is verified before the file gets its name. Ctrl-C keeps what has
come in: give the same command again to go on from there.";

const SHOW_EXAMPLES: &str = "\
Examples:
  potluck show            everything
  potluck show film       names with \"film\" in them
  potluck show '*.iso'    a glob
  potluck show docs/      a folder
  potluck --json show | jq -r '.files[].path'

HELD: ✓ all of it is here, part: some of it, -: nothing.";

/// Share a folder, and fetch what others share, from every owner at once.
#[derive(Debug, Parser)]
#[command(name = "potluck", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    /// For every verb.
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// Flags that go before or after any verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The folder to share and to download into
    #[arg(long, global = true, env = "POTLUCK_SHARE", value_name = "DIR", default_value = "./share")]
    pub share: PathBuf,
    /// A tracker, as URL or HOST:PORT; repeat it for several (in the environment separated by commas)
    #[arg(long = "tracker", global = true, env = "POTLUCK_TRACKER", value_name = "URL", value_delimiter = ',',
        default_value = DEFAULT_TRACKER, value_parser = parse_tracker)]
    pub trackers: Vec<String>,
    /// What others call this peer [default: the host's name]
    #[arg(long, global = true, env = "POTLUCK_NAME", value_name = "NAME", value_parser = parse_name)]
    pub name: Option<String>,
    /// The address to serve others at; port 0 takes any free one
    #[arg(long, global = true, env = "POTLUCK_LISTEN", value_name = "ADDR:PORT", default_value = "0.0.0.0:0")]
    pub listen: SocketAddr,
    /// The address to give others, if it is not the one the tracker sees
    #[arg(long, global = true, env = "POTLUCK_ADVERTISE", value_name = "HOST[:PORT]")]
    pub advertise: Option<Advertise>,
    /// Write a daily log file into this folder
    #[arg(long, global = true, env = "POTLUCK_LOG_DIR", value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Answer in JSON, for programs
    #[arg(long, global = true, env = "POTLUCK_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run the peer: share the folder and serve others, until Ctrl-C or `stop`
    Up,
    /// Open the interactive shell; reads commands from standard input when that is not a terminal
    Shell,
    /// List files known to the tracker: name, size, owners, whether we hold them
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// A part of the name, a glob, or a folder with a trailing slash
        pattern: Option<String>,
    },
    /// Fetch files from all their owners at once
    #[command(after_help = DOWNLOAD_EXAMPLES)]
    Download {
        /// Names, globs, folders with a trailing slash, content ids, or NAME@ID-PREFIX
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// From one owner only, whichever that is
        #[arg(long, conflicts_with = "from")]
        single: bool,
        /// From the peer of this name or id only
        #[arg(long, value_name = "PEER")]
        from: Option<String>,
        /// Where to put it: a file's path, or a folder that exists
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
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
    /// Hash again what we share, and say what is damaged
    Verify {
        /// Only what matches: a part of the name, a glob, or a folder with a trailing slash
        pattern: Option<String>,
    },
    /// End the running peer of the share folder
    Stop,
}

impl Global {
    /// What a peer in this process is told.
    ///
    /// # Errors
    /// If no name was given and the host's cannot be one.
    pub fn config(&self) -> Result<Config, Failed> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => host_name().ok_or_else(|| {
                let hint = "Give one with --name NAME or POTLUCK_NAME.";
                Failed::new(FailureKind::Usage, "the host's name cannot be a peer's name", hint)
            })?,
        };
        let (share, trackers, advertise) = (self.share.clone(), self.trackers.clone(), self.advertise.clone());
        Ok(Config { share, trackers, name, advertise, ..Config::default() })
    }
}

impl Action {
    /// The verb for a peer, if this is one; `up` and `shell` are not. Paths are taken from the folder `base`.
    pub fn verb(self, base: &Path) -> Option<Verb> {
        Some(match self {
            Self::Up | Self::Shell => return None,
            Self::Show { pattern } => Verb::Show { pattern },
            Self::Download { names, single, from, output } => {
                let from = match (single, from) {
                    (true, _) => From::Single,
                    (false, Some(peer)) => From::Peer(peer),
                    (false, None) => From::All,
                };
                Verb::Download(Download { names, from, output: output.map(|path| base.join(path)) })
            }
            Self::Getip { target } => Verb::Getip { target },
            Self::Peers => Verb::Peers,
            Self::Status => Verb::Status,
            Self::Verify { pattern } => Verb::Verify { pattern },
            Self::Stop => Verb::Stop,
        })
    }
}

/// A tracker's base URL, from a URL or `HOST:PORT`, without a slash at its end.
fn parse_tracker(text: &str) -> Result<String, String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = reqwest::Url::parse(&with_scheme)
        .map_err(|error| format!("{error}; expected a URL such as http://tracker.local:7700, or HOST:PORT"))?;
    let rest = (url.path(), url.query(), url.fragment(), url.username(), url.password());
    match (url.scheme(), url.host_str(), rest) {
        ("http", Some(host), ("/", None, None, "", None)) if !host.is_empty() => {
            Ok(url.as_str().trim_end_matches('/').to_owned())
        }
        ("http", ..) => Err("expected only a host and a port, such as http://tracker.local:7700".into()),
        _ => Err("trackers speak plain http, such as http://tracker.local:7700".into()),
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    match is_valid_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 bytes, no slash or control character, and no space at an end".into()),
    }
}

fn host_name() -> Option<String> {
    let uname = rustix::system::uname();
    uname.nodename().to_str().ok().filter(|name| is_valid_name(name)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn trackers() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(parse_tracker(text).ok().as_deref(), want, "{text}");
        };
        check("http://127.0.0.1:7700", Some("http://127.0.0.1:7700"));
        check("tracker:7700", Some("http://tracker:7700"));
        check("Tracker:7700/", Some("http://tracker:7700"));
        check("[::1]:7700", Some("http://[::1]:7700"));
        check("localhost", Some("http://localhost"));
        for bad in
            ["", "http://", "https://x:1", "ftp://x", "x:99999", "http://x/y", "http://a@x:1", "a b", "http://x?y"]
        {
            check(bad, None);
        }
    }

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["potluck"], line].concat())
    }

    #[test]
    fn verbs() {
        let check = |line: &[&str], want: Option<Verb>| {
            assert_eq!(parse(line).unwrap().action.verb(Path::new("/here")), want, "{line:?}");
        };
        let download = |names: &[&str], from, output: Option<&str>| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Some(Verb::Download(Download { names, from, output: output.map(PathBuf::from) }))
        };
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
        check(&["stop", "--share", "/y"], Some(Verb::Stop));
    }

    #[test]
    fn usage_errors() {
        for line in [
            &["download"][..],
            &["download", "--single", "--from", "b", "a"],
            &["download", "--option"],
            &["show", "a", "b"],
            &["peers", "--name", "a/b"],
            &["peers", "--name", ""],
            &["peers", "--tracker", "https://x"],
            &["peers", "--listen", "7700"],
            &["peers", "--advertise", "http://x"],
            &["fetch", "x"],
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
        assert_eq!(parse(&[]).unwrap_err().kind(), clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    }

    #[test]
    fn help() {
        // The environment of the test must not show.
        let command = || Cli::command().term_width(100).mut_args(|arg| arg.hide_env_values(true));
        insta::assert_snapshot!("help", command().render_long_help());
        let mut all = command();
        all.build();
        for verb in ["download", "show"] {
            let verb_help = all.find_subcommand_mut(verb).unwrap().render_long_help();
            insta::assert_snapshot!(format!("help_{verb}"), verb_help);
        }
    }

    #[test]
    fn help_keeps_its_lines() {
        for text in [EXAMPLES, DOWNLOAD_EXAMPLES, SHOW_EXAMPLES] {
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }

    #[test]
    fn the_peer_is_told() {
        let cli =
            parse(&["up", "--share", "/s", "--name", "n", "--tracker", "a:1", "--tracker", "http://b:2"]).unwrap();
        let config = cli.global.config().unwrap();
        assert_eq!((config.share, config.name.as_str()), (PathBuf::from("/s"), "n"));
        assert_eq!(config.trackers, ["http://a:1", "http://b:2"]);
        assert!(host_name().is_none_or(|name| is_valid_name(&name)));
    }
}
