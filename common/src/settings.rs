//! Settings from a file, `potluck.toml`, under flags and environment.
//!
//! The keys are the names of the flags, so there is nothing to learn twice: what the file says becomes the default of the
//! flag, and clap does the rest. Each program has a table of its own, `[peer]` and `[tracker]`. A key that does not exist, a value that a
//! flag would not take, and a file that was named and is missing are errors, with the line.
//!
//! Where the file is: `--config`, `POTLUCK_CONFIG` (empty: no file), `$XDG_CONFIG_HOME/potluck/potluck.toml`
//! (`~/.config` without that variable), `/etc/potluck/potluck.toml`; the first that there is, and no other.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The flag that names the file.
pub const FLAG: &str = "config";
/// The variable that names it; empty: there is none.
pub const VARIABLE: &str = "POTLUCK_CONFIG";
/// Flags that are no settings.
const NO_SETTINGS: [&str; 6] = [FLAG, "help", "version", "health", "print-config", "write-man"];
/// The tables of both programs.
const TABLES: [&str; 2] = ["peer", "tracker"];
/// How alike two names are, of 1, so that one may be meant by the other.
const ALIKE: f64 = 0.75;
/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Why the file cannot be used: which, where in it, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {what}", .path.display(), .line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct SettingsError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; `None`: the file as a whole.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub what: String,
}

impl From<SettingsError> for clap::Error {
    fn from(error: SettingsError) -> Self {
        Self::raw(clap::error::ErrorKind::ValueValidation, format!("{error}\n"))
    }
}

/// What the file says about one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    line: usize,
    values: Vec<String>,
}

/// What a file says, or nothing if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    path: Option<PathBuf>,
    by_key: BTreeMap<String, Setting>,
}

/// For which program, and which of its flags are settings.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// The table in the file.
    pub table: &'static str,
    /// The verb whose flags are settings too, if the program has verbs.
    pub verb: Option<&'static str>,
}

impl Settings {
    /// Finds and reads the file for a command line. `env` gives variables.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn of(
        command: &Command,
        scope: Scope,
        args: &[OsString],
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, SettingsError> {
        let named = named_in(args).or_else(|| env(VARIABLE));
        let path = match named {
            Some(named) if named.is_empty() => return Ok(Self::default()),
            Some(named) => PathBuf::from(named),
            None => match usual_places(&env).into_iter().find(|path| path.exists()) {
                Some(path) => path,
                None => return Ok(Self::default()),
            },
        };
        let text = read(&path).map_err(|error| {
            let what = format!("cannot be read: {error}. Name another file with --config, or none with {VARIABLE}=");
            SettingsError { path: path.clone(), line: None, what }
        })?;
        Self::parse(&text, &path, command, scope, env("HOME").as_deref())
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn parse(
        text: &str,
        path: &Path,
        command: &Command,
        scope: Scope,
        home: Option<&OsStr>,
    ) -> Result<Self, SettingsError> {
        let line_of =
            |offset: usize| text.as_bytes()[..offset.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1;
        let wrong =
            |offset: Option<usize>, what: String| SettingsError { path: path.into(), line: offset.map(line_of), what };
        let document = DeTable::parse(text).map_err(|error| {
            wrong(error.span().map(|span| span.start), format!("this is not TOML: {}", error.message()))
        })?;
        let args = settable(command, scope);
        let mut by_key = BTreeMap::new();
        for (name, value) in document.get_ref() {
            let table = match value.get_ref() {
                DeValue::Table(table) if TABLES.contains(&name.get_ref().as_ref()) => table,
                _ => return Err(wrong(Some(name.span().start), stray(name.get_ref(), scope.table))),
            };
            if *name.get_ref() != scope.table {
                continue;
            }
            for (key, value) in table {
                let at = Some(key.span().start);
                let arg = args.iter().find(|arg| arg.get_long() == Some(key.get_ref()));
                let arg = arg.ok_or_else(|| wrong(at, unknown(key.get_ref(), scope.table, &args)))?;
                let values =
                    values(value, arg, home).map_err(|what| wrong(at, format!("{}: {what}", key.get_ref())))?;
                refused(command, scope, key.get_ref(), arg, &values).map_or(Ok(()), |what| Err(wrong(at, what)))?;
                by_key.insert(key.get_ref().to_string(), Setting { line: line_of(key.span().start), values });
            }
        }
        Ok(Self { path: Some(path.into()), by_key })
    }

    /// The command whose defaults are what the file says.
    pub fn under(&self, command: Command, scope: Scope) -> Command {
        let set = |command: Command| {
            command.mut_args(|arg| match arg.get_long().and_then(|long| self.by_key.get(long)) {
                Some(setting) => arg.default_values(setting.values.clone()),
                None => arg,
            })
        };
        match scope.verb {
            Some(verb) => set(command).mut_subcommand(verb, set),
            None => set(command),
        }
    }

    /// What holds: each setting, and where its value is from. `args` is the command line, `command` one of [`Settings::under`].
    ///
    /// # Errors
    /// If a value of the environment is none.
    pub fn effective(&self, command: &Command, scope: Scope, args: &[OsString]) -> Result<Effective, clap::Error> {
        let typed = command.clone().try_get_matches_from(args)?;
        let verb =
            scope.verb.map(|verb| command.clone().try_get_matches_from([command.get_name(), verb])).transpose()?;
        let levels = [typed.subcommand().map(|(_, matches)| matches), Some(&typed)];
        let levels = levels.into_iter().chain([verb.as_ref().and_then(|all| Some(all.subcommand()?.1))]).flatten();
        let levels: Vec<&ArgMatches> = levels.collect();
        let settings = settable(command, scope).into_iter().filter_map(|arg| {
            let key = arg.get_long()?.to_owned();
            let matches = levels.iter().find(|matches| matches.try_contains_id(arg.get_id().as_str()).is_ok());
            let raw = matches.and_then(|matches| matches.get_raw(arg.get_id().as_str())).into_iter().flatten();
            let values: Vec<_> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
            let source = match matches.and_then(|matches| matches.value_source(arg.get_id().as_str())) {
                None => Source::NotSet,
                Some(ValueSource::CommandLine) => Source::Flag,
                Some(ValueSource::EnvVariable) => {
                    Source::Environment(arg.get_env().unwrap_or_default().to_string_lossy().into_owned())
                }
                Some(_) => self.by_key.get(&key).map_or(Source::Default, |setting| Source::File { line: setting.line }),
            };
            let kind = match (is_switch(&arg), takes_many(&arg)) {
                (true, _) => Kind::Switch,
                (_, true) => Kind::Many,
                _ => Kind::One,
            };
            Some(EffectiveSetting { key, values, source, kind })
        });
        Ok(Effective { table: scope.table, path: self.path.clone(), settings: settings.collect() })
    }
}

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It was typed.
    Flag,
    /// This variable.
    Environment(String),
    /// The file, in this line.
    File {
        /// From 1.
        line: usize,
    },
    /// Nobody said anything.
    Default,
    /// Nobody said anything, and it has no value then.
    NotSet,
}

/// How a value is written in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    Many,
    Switch,
}

/// One setting as it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveSetting {
    /// The name of the flag.
    pub key: String,
    /// Its values, none or more.
    pub values: Vec<String>,
    /// Where from.
    pub source: Source,
    #[serde(skip)]
    kind: Kind,
}

/// All settings as they hold. Shown, it is a `potluck.toml` that says the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The table of this program.
    pub table: &'static str,
    /// The file that was read.
    pub path: Option<PathBuf>,
    /// In the order of `--help`.
    pub settings: Vec<EffectiveSetting>,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => writeln!(f, "# with {}", quoted(&path.to_string_lossy()))?,
            None => writeln!(f, "# there is no potluck.toml")?,
        }
        write!(f, "[{}]", self.table)?;
        for EffectiveSetting { key, values, source, kind } in &self.settings {
            let value = match (kind, values.as_slice()) {
                (Kind::Switch, values) => values.first().map_or("false", |value| switch(value)).to_owned(),
                (Kind::One, [value]) => quoted(value),
                (_, values) => format!("[{}]", values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ")),
            };
            let from = match source {
                Source::NotSet => {
                    write!(f, "\n# {key} is not set")?;
                    continue;
                }
                Source::Flag => format!("--{key}"),
                Source::Environment(name) => name.clone(),
                Source::File { line } => format!("line {line}"),
                Source::Default => "default".into(),
            };
            write!(f, "\n{:<40} # {from}", format!("{key} = {value}"))?;
        }
        Ok(())
    }
}

/// As clap's `FalseyValueParser` reads it.
fn switch(value: &str) -> &'static str {
    match value.to_ascii_lowercase().as_str() {
        "" | "n" | "no" | "f" | "false" | "off" | "0" => "false",
        _ => "true",
    }
}

/// A basic string of TOML. Whatever a terminal might take for more than text is escaped, which says the same.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c) => {
                quoted += &format!("\\U{:08X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// The value of `--config`, wherever it stands before `--`.
fn named_in(args: &[OsString]) -> Option<OsString> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().cloned();
        }
        if let Some(value) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(value.into());
        }
    }
    None
}

fn usual_places(env: &impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    own.into_iter().chain([PathBuf::from("/etc")]).map(|folder| folder.join("potluck/potluck.toml")).collect()
}

fn read(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    let len = std::fs::File::open(path)?.take(MAX_LEN + 1).read_to_string(&mut text)?;
    if len as u64 > MAX_LEN {
        return Err(io::Error::other("it is too long for a file of settings"));
    }
    Ok(text)
}

/// The flags that are settings, in the order of `--help`.
fn settable(command: &Command, scope: Scope) -> Vec<Arg> {
    let of_verb = scope.verb.and_then(|verb| command.find_subcommand(verb));
    let args = command.get_arguments().chain(of_verb.into_iter().flat_map(Command::get_arguments));
    let mut seen = std::collections::BTreeSet::new();
    args.filter(|arg| arg.get_long().is_some_and(|long| !NO_SETTINGS.contains(&long) && seen.insert(long.to_owned())))
        .cloned()
        .collect()
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn takes_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// A value of the file as the flag's values.
fn values(value: &Spanned<DeValue<'_>>, arg: &Arg, home: Option<&OsStr>) -> Result<Vec<String>, String> {
    let at_home = |text: &str| match (text.strip_prefix("~/"), home.and_then(OsStr::to_str)) {
        (Some(rest), Some(home)) => format!("{home}/{rest}"),
        _ => text.to_owned(),
    };
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(at_home(text)),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        _ => None,
    };
    match value.get_ref() {
        DeValue::Boolean(on) if is_switch(arg) => Ok(vec![on.to_string()]),
        _ if is_switch(arg) => Err("expected true or false".into()),
        DeValue::Array(values) if takes_many(arg) => {
            let all: Option<_> = values.iter().map(|value| one(value.get_ref())).collect();
            all.ok_or_else(|| "expected texts in quotes, separated by commas".into())
        }
        DeValue::Array(_) => Err("expected one value, not several".into()),
        value => one(value).map(|value| vec![value]).ok_or_else(|| "expected a text in quotes".into()),
    }
}

/// Why a flag would not take these values, if it would not.
fn refused(command: &Command, scope: Scope, key: &str, arg: &Arg, values: &[String]) -> Option<String> {
    if is_switch(arg) {
        return None;
    }
    let typed = values.iter().map(|value| format!("--{key}={value}"));
    let line = [command.get_name().to_owned()].into_iter().chain(scope.verb.map(str::to_owned)).chain(typed);
    let error = command.clone().try_get_matches_from(line).err()?;
    // Another one may be about the environment, which is not for the file to answer for.
    let about = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(about)) => about.as_str(),
        _ => return None,
    };
    if about.split([' ', '=']).next() != Some(&format!("--{key}")) {
        return None;
    }
    let why = std::error::Error::source(&error).map(ToString::to_string).or_else(|| {
        match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) => Some(format!("it takes {}", valid.join(", "))),
            _ => None,
        }
    });
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => quoted(value),
        _ => "this".into(),
    };
    Some(format!("{key} cannot be {value}: {}", why.unwrap_or_else(|| "see --help".into())))
}

fn stray(name: &str, table: &str) -> String {
    format!("{} is neither [peer] nor [tracker]: settings of this program stand below a line [{table}]", quoted(name))
}

fn unknown(key: &str, table: &str, args: &[Arg]) -> String {
    let names = args.iter().filter_map(Arg::get_long);
    let alike = names.map(|name| (strsim::jaro_winkler(key, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match alike {
        Some((alike, name)) if alike >= ALIKE => format!("did you mean {name}?"),
        _ => "the names are those of the flags, see --help".into(),
    };
    format!("[{table}] has no setting {}; {hint}", quoted(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::builder::FalseyValueParser;

    const SCOPE: Scope = Scope { table: "peer", verb: Some("up") };

    fn command() -> Command {
        let many = Arg::new("trackers").long("tracker").action(ArgAction::Append).value_delimiter(',').global(true);
        let json = Arg::new("json").long("json").action(ArgAction::SetTrue).value_parser(FalseyValueParser::new());
        let port = Arg::new("port").long("port").value_parser(clap::value_parser!(u16)).default_value("7").global(true);
        let sync = Arg::new("sync").long("sync").value_parser(["both", "send"]);
        Command::new("test")
            .subcommand_required(true)
            .args([many, json.global(true), port, Arg::new("config").long("config").global(true)])
            .subcommand(Command::new("up").arg(sync))
            .subcommand(Command::new("show").arg(Arg::new("from").long("from")))
    }

    fn parse(text: &str) -> Result<Settings, String> {
        let parsed = Settings::parse(text, Path::new("p.toml"), &command(), SCOPE, Some(OsStr::new("/home/ann")));
        parsed.map_err(|error| error.to_string())
    }

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn flags_above_environment_above_file_above_default() {
        let settings = parse("[peer]\ntracker = ['a', 'b']\njson = true\nport = 9\n[tracker]\nwhatever = 1\n").unwrap();
        let command = settings.under(command(), SCOPE);
        let ports = |line: &str| {
            let matches = command.clone().try_get_matches_from(args(line)).unwrap();
            let (_, verb) = matches.subcommand().unwrap();
            let trackers: Vec<_> = verb.get_many::<String>("trackers").unwrap().cloned().collect();
            (*verb.get_one::<u16>("port").unwrap(), verb.get_flag("json"), trackers.join("+"))
        };
        assert_eq!(ports("test show"), (9, true, "a+b".into()));
        assert_eq!(ports("test --port 1 show --tracker c"), (1, true, "c".into()));
        let shown = settings.effective(&command, SCOPE, &args("test --port 1 show")).unwrap().to_string();
        let want = "# with \"p.toml\"\n[peer]\ntracker = [\"a\", \"b\"]                     # line 2\n\
            json = true                              # line 3\nport = \"1\"                               # --port\n\
            # sync is not set";
        assert_eq!(shown, want);
        // What is shown says the same when it is read.
        assert_eq!(parse(&shown).unwrap().by_key["port"].values, ["1"]);
        let none = Settings::default();
        let shown = none.effective(&none.under(self::command(), SCOPE), SCOPE, &args("test show")).unwrap().to_string();
        assert!(shown.contains("port = \"7\"                               # default"), "{shown}");
        assert!(shown.starts_with("# there is no potluck.toml\n"), "{shown}");
    }

    #[test]
    fn settings_of_the_verb_are_settings_too() {
        let settings = parse("[peer]\nsync = 'both'\n").unwrap();
        let command = settings.under(command(), SCOPE);
        let matches = command.clone().try_get_matches_from(args("test up")).unwrap();
        assert_eq!(matches.subcommand().unwrap().1.get_one::<String>("sync").unwrap(), "both");
        assert!(command.try_get_matches_from(args("test show")).is_ok());
    }

    #[test]
    fn mistakes_name_the_line_and_what_to_do() {
        let check = |text: &str, want: &str| assert_eq!(parse(text).unwrap_err(), want, "{text}");
        check("[peer]\n\ntrakcer = 'a'", "p.toml:3: [peer] has no setting \"trakcer\"; did you mean tracker?");
        check("[peer]\nx = 1", "p.toml:2: [peer] has no setting \"x\"; the names are those of the flags, see --help");
        check(
            "[peer]\nconfig = 'x'",
            "p.toml:2: [peer] has no setting \"config\"; the names are those of the flags, see --help",
        );
        check(
            "[peer]\nfrom = 'x'",
            "p.toml:2: [peer] has no setting \"from\"; the names are those of the flags, see --help",
        );
        check("[peer]\nport = 'many'", "p.toml:2: port cannot be \"many\": invalid digit found in string");
        check("[peer]\nport = 99999", "p.toml:2: port cannot be \"99999\": 99999 is not in 0..=65535");
        check("[peer]\nsync = 'no'", "p.toml:2: sync cannot be \"no\": it takes both, send");
        check("[peer]\njson = 'yes'", "p.toml:2: json: expected true or false");
        check("[peer]\nport = [1]", "p.toml:2: port: expected one value, not several");
        check("[peer]\nport = 1.5", "p.toml:2: port: expected a text in quotes");
        check("[peer]\ntracker = [1.5]", "p.toml:2: tracker: expected texts in quotes, separated by commas");
        check(
            "port = 1",
            "p.toml:1: \"port\" is neither [peer] nor [tracker]: settings of this program stand below a line [peer]",
        );
        assert!(parse("[peer]\nport = \n").unwrap_err().starts_with("p.toml:2: this is not TOML: "));
        assert!(parse("[peer]\nport = 1\nport = 2\n").unwrap_err().starts_with("p.toml:3: this is not TOML: "));
    }

    #[test]
    fn texts() {
        let settings = parse("[peer]\ntracker = ['~/x', '~y', '/~/']\n").unwrap();
        assert_eq!(settings.by_key["tracker"].values, ["/home/ann/x", "~y", "/~/"]);
        let odd = "a\"b\\c\n\u{9b}\u{202e}é";
        let text = format!("[peer]\ntracker = {}\n", quoted(odd));
        assert!(text.chars().filter(|c| *c != '\n').all(|c| !c.is_control()), "{text:?}");
        assert_eq!(parse(&text).unwrap().by_key["tracker"].values, [odd]);
    }

    #[test]
    fn where_the_file_is() {
        let temp = std::env::temp_dir().join(format!("potluck-settings-{}", std::process::id()));
        let own = temp.join("potluck/potluck.toml");
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(&own, "[peer]\nport = 1\n").unwrap();
        let other = temp.join("other.toml");
        std::fs::write(&other, "[peer]\nport = 2\n").unwrap();
        let (named, missing) = (other.to_str().unwrap(), temp.join("missing").to_str().unwrap().to_owned());
        let port = |line: &str, variable: Option<&str>| {
            let env = |name: &str| match name {
                VARIABLE => variable.map(OsString::from),
                "XDG_CONFIG_HOME" => Some(temp.clone().into()),
                _ => None,
            };
            let settings = Settings::of(&command(), SCOPE, &args(line), env).map_err(|error| error.to_string())?;
            Ok::<_, String>(settings.by_key.get("port").map(|setting| setting.values[0].clone()))
        };
        let is = |port: &str| Ok(Some(port.to_owned()));
        assert_eq!(port("test show", None), is("1"));
        assert_eq!(port("test show", Some(named)), is("2"));
        assert_eq!(port(&format!("test show --config {named}"), Some(&missing)), is("2"));
        assert_eq!(port(&format!("test --config={named} show"), None), is("2"));
        assert_eq!(port("test show", Some("")), Ok(None));
        assert_eq!(port(&format!("test show -- --config {missing}"), None), is("1"));
        let error = port("test show", Some(&missing)).unwrap_err();
        assert!(error.contains("missing: cannot be read: ") && error.contains("--config"), "{error}");
        std::fs::remove_dir_all(temp).unwrap();
    }
}
