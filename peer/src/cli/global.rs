//! Flags that every verb takes, and what they tell a peer that this process runs.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use potluck_common::address::{Advertise, parse_listen};
use potluck_common::discovery::SwarmName;
use potluck_common::net::log;
use potluck_common::protocol::is_valid_name;

use crate::config::Config;
use crate::discovery::DiscoveryConfig;
use crate::limit::schedule::Limit;
use crate::verb::{Failed, FailureKind};

/// Flags that say what a peer starts with, by the names of their fields.
pub(super) const START_FLAGS: [(&str, &str); 7] = [
    ("trackers", "--tracker"),
    ("swarm", "--swarm"),
    ("name", "--name"),
    ("listen", "--listen"),
    ("advertise", "--advertise"),
    ("limit_up", "--limit-up"),
    ("limit_down", "--limit-down"),
];

/// Flags that go before or after any verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The folder to share and to download into
    #[arg(long, global = true, env = "POTLUCK_SHARE", value_name = "DIR", default_value = "./share")]
    pub share: PathBuf,
    /// A tracker, as URL or HOST:PORT; repeat it for several (in the environment separated by commas).
    /// Without any, one is looked for on the network, and `up` and `shell` host one if there is none
    #[arg(long = "tracker", global = true, env = "POTLUCK_TRACKER", value_name = "URL", value_delimiter = ',',
        value_parser = parse_tracker)]
    pub trackers: Vec<String>,
    /// Which of several swarms on the network a tracker is looked for
    #[arg(long, global = true, env = "POTLUCK_SWARM", value_name = "NAME", default_value = "default")]
    pub swarm: SwarmName,
    /// What others call this peer [default: the host's name]
    #[arg(long, global = true, env = "POTLUCK_NAME", value_name = "NAME", value_parser = parse_name)]
    pub name: Option<String>,
    /// The address to serve others at; port 0 takes any free one
    #[arg(long, global = true, env = "POTLUCK_LISTEN", value_name = "ADDR:PORT", default_value = "0.0.0.0:0",
        value_parser = parse_listen)]
    pub listen: SocketAddr,
    /// The address to give others, if it is not the one the tracker sees
    #[arg(long, global = true, env = "POTLUCK_ADVERTISE", value_name = "HOST[:PORT]")]
    pub advertise: Option<Advertise>,
    /// Send at most this much a second: 10M (MiB), by time of day 200M@08-18, several with commas, or off
    #[arg(long, global = true, env = "POTLUCK_LIMIT_UP", value_name = "RATE", default_value = "off")]
    pub limit_up: Limit,
    /// Receive at most this much a second, written the same way
    #[arg(long, global = true, env = "POTLUCK_LIMIT_DOWN", value_name = "RATE", default_value = "off")]
    pub limit_down: Limit,
    /// Write a daily log file into this folder
    #[arg(long, global = true, env = "POTLUCK_LOG_DIR", value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// How log lines are written: text, or json for programs that gather them
    #[arg(long, global = true, env = "POTLUCK_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: log::Format,
    /// The file of settings [default: ~/.config/potluck/potluck.toml, or else /etc/potluck/potluck.toml]
    #[arg(long, global = true, env = "POTLUCK_CONFIG", value_name = "FILE")]
    pub config: Option<OsString>,
    /// Answer in JSON, for programs
    #[arg(long, global = true, env = "POTLUCK_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// Which of the flags that say what a peer starts with were typed. Not those of the environment: it is the same for the
    /// peer and for all verbs, and meant for whichever it concerns.
    #[arg(skip)]
    pub typed_for_start: Vec<&'static str>,
}

impl Global {
    /// What to say when a peer runs already: flags that do nothing then. Of limits, what does it.
    pub fn ignored(&self) -> Option<String> {
        let flags = &self.typed_for_start;
        let verb = if flags.len() == 1 { "does" } else { "do" };
        let hint = match flags.iter().any(|flag| flag.starts_with("--limit")) {
            true => "; `potluck limit` changes limits",
            false => "",
        };
        let joined = flags.join(", ");
        (!flags.is_empty()).then(|| format!("{joined} {verb} nothing here: a peer runs on this folder already{hint}"))
    }

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
        let (limit_up, limit_down) = (self.limit_up.clone(), self.limit_down.clone());
        let discovery = DiscoveryConfig { swarm: self.swarm.clone(), ..DiscoveryConfig::default() };
        let discovery = trackers.is_empty().then_some(discovery);
        Ok(Config { share, trackers, discovery, name, advertise, limit_up, limit_down, ..Config::default() })
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

    #[test]
    fn a_host_name_is_a_name_or_none() {
        assert!(host_name().is_none_or(|name| is_valid_name(&name)));
    }
}
