//! The `potluck` binary: arguments, logging, signals, one call. What it prints it prints through [`Out`].

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use potluck_common::net::{log, shutdown, supervisor};
use potluck_peer::cli::{Action, Cli, Global, SyncHow};
use potluck_peer::doctor::{self, Verdict};
use potluck_peer::on_complete::OnComplete;
use potluck_peer::render::doctor::{findings, findings_json};
use potluck_peer::render::{Ending, Format, Look, Out, Renderer, escape, follow, told_of};
use potluck_peer::shell::reach::{Reached, bind};
use potluck_peer::shell::{self, EXIT_INTERRUPTED, show_failure};
use potluck_peer::verb::{Failed, FailureKind, Verb};
use potluck_peer::{Config, Lifetime, Peer, manuals, sums};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What threads that sit in a read of the terminal are given at the end.
const LEAVE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let cli = Cli::of_process();
    let format = if cli.global.json { Format::Json } else { Format::Text };
    let mut out = Out::standard();
    let ended = run(cli, format, &mut out);
    let shown = match ended {
        Ok(code) => return ExitCode::from(code),
        Err(Ended::Failed(failed)) => {
            let code = ExitCode::from(failed.kind.exit_code());
            show_failure(&failed, format, &mut out).map(|()| code)
        }
        Err(Ended::Io(error)) => Err(error),
    };
    match shown {
        Ok(code) => code,
        // Nobody reads on: that is for the reader to decide and no failure of ours.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            out.remark(&format!("error: cannot read or write: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Why the program ends early.
enum Ended {
    Failed(Failed),
    /// Standard input or output failed.
    Io(io::Error),
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn run(cli: Cli, format: Format, out: &mut Out) -> Result<u8, Ended> {
    match &cli.action {
        Action::Hash { files } => return Ok(sums::hash(files, format, out)?),
        Action::Completions { shell } => {
            out.result(manuals::completions(*shell).trim_end())?;
            return Ok(0);
        }
        Action::Man { dir } => {
            manuals::write_man_pages(dir).map_err(|error| {
                let message = format!("cannot write man pages into {}: {error}", dir.display());
                Failed::new(FailureKind::Failed, message, "Name a folder that can be written.")
            })?;
            return Ok(0);
        }
        Action::Config => {
            if let Some(effective) = &cli.effective {
                let json = || serde_json::to_string(effective).map_err(io::Error::from);
                out.result(&if format == Format::Json { json()? } else { effective.to_string() })?;
            }
            return Ok(0);
        }
        _ => {}
    }
    // A peer without a terminal tells its log to whoever started it; a person at a terminal wants answers.
    let stderr = match cli.action {
        Action::Up { .. } if io::stderr().is_terminal() => log::Stderr::Warnings,
        Action::Up { .. } => log::Stderr::Lines,
        _ => log::Stderr::Nothing,
    };
    let _written_at_the_end = log::init("potluck", cli.global.log_dir.as_deref(), stderr, cli.global.log_format)
        .map_err(|error| {
            let dir = cli.global.log_dir.as_deref().unwrap_or_else(|| "".as_ref()).display();
            let hint = "Give a folder that can be written with --log-dir.";
            Failed::new(FailureKind::Failed, format!("cannot log to {dir}: {error}"), hint)
        })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let Cli { global, action, .. } = cli;
        match action {
            Action::Up { sync, include, exclude, trash_days, on_complete } => {
                let config = global.config()?;
                let sync = sync.map(SyncHow::mode);
                let trash_keep = Duration::from_secs(u64::from(trash_days) * 24 * 60 * 60);
                let on_complete = on_complete.map(program).transpose()?;
                up(&global, Config { sync, include, exclude, trash_keep, on_complete, ..config }, out).await
            }
            Action::Shell => open_shell(&global, format, out).await,
            Action::Doctor => {
                let found = doctor::examine(&global).await;
                out.result(&match format {
                    Format::Text => findings(&found, &Look::of_process()),
                    Format::Json => findings_json(&found),
                })?;
                let to_mend = doctor::verdict(&found) == Verdict::Fail;
                Ok(if to_mend { FailureKind::Failed.exit_code() } else { 0 })
            }
            action => {
                let base = std::env::current_dir()?;
                let on_complete = match &action {
                    Action::Download { on_complete, .. } => on_complete.clone().map(program).transpose()?,
                    _ => None,
                };
                let verb = action.verb(&base).expect("what is no verb is dealt with above");
                one_verb(&global, verb, on_complete, format, out).await
            }
        }
    });
    runtime.shutdown_timeout(LEAVE);
    code
}

/// `up`: the peer in the foreground.
async fn up(global: &Global, config: Config, out: &mut Out) -> Result<u8, Ended> {
    let shutdown = CancellationToken::new();
    let serve = async {
        let listener = bind(global).await?;
        let peer = Peer::start(listener, config, Lifetime::Running, shutdown.clone()).await?;
        let (name, url) = (escape(peer.name()).into_owned(), peer.listen_url().to_owned());
        let ready = format!("peer {name} ready on {url} sharing {}", peer.share().display());
        if let Err(error) = out.result(&ready) {
            tracing::warn!(%error, "cannot write the ready line");
        }
        supervisor::ready();
        peer.wait().await;
        Ok(0)
    };
    tokio::select! {
        // In this order, so that systemd hears of the end before we have ended.
        biased;
        never = supervisor::run(shutdown.clone()) => match never {},
        code = serve => code,
        ended = signals(&shutdown) => Err(ended),
    }
}

/// A verb through the running peer, or through one that lives as long as the verb.
async fn one_verb(
    global: &Global,
    verb: Verb,
    on_complete: Option<OnComplete>,
    format: Format,
    out: &mut Out,
) -> Result<u8, Ended> {
    let shutdown = CancellationToken::new();
    let act = async {
        let look = Look::of_process();
        // Removed after the peer that uses it has ended.
        let _instead;
        let reached = match Reached::running(&global.share).await? {
            Some(running) => {
                if let Some(ignored) = global.ignored() {
                    out.remark(&format!("warning: {ignored}"));
                }
                running
            }
            // One that was started for it would end with it.
            None if matches!(
                verb,
                Verb::Stop | Verb::Limit { .. } | Verb::Sync { .. } | Verb::Conflicts { .. } | Verb::Wait { .. }
            ) =>
            {
                return Err(no_peer(global).into());
            }
            None => {
                let started = match folder_for(&verb, &global.share)? {
                    None => Reached::start(global, Lifetime::Command).await?,
                    Some(instead) => {
                        let global = Global { share: instead.path().to_owned(), ..global.clone() };
                        let started = Reached::start(&global, Lifetime::Command).await?;
                        _instead = instead;
                        started
                    }
                };
                if io::stderr().is_terminal() && format == Format::Text {
                    out.remark("note: no peer runs on this folder, so one was started for this command");
                }
                started
            }
        };
        let mut failures = Vec::new();
        let mut n_failures = 0;
        let mut renderer = Renderer::new(&verb, format, look, out);
        let events = reached.run(verb);
        let ending = match on_complete {
            None => follow(events, &mut renderer, shutdown.cancelled()).await,
            Some(program) => {
                let (completions, running) = program.start(|failure| failures.push(failure));
                let (sender, told) = tokio::sync::mpsc::channel(1);
                let following = follow(told, &mut renderer, shutdown.cancelled());
                // Ctrl-C is for the programs too; nobody waits for them then.
                let programs = async {
                    tokio::select! { n = running => n, () = shutdown.cancelled() => 0 }
                };
                let ((), ending, n) = tokio::join!(told_of(events, sender, completions), following, programs);
                n_failures = n;
                ending
            }
        };
        reached.end().await;
        for failure in failures {
            out.remark(&format!("error: {}", escape(&failure)));
        }
        Ok(match ending? {
            Ending::Done if n_failures > 0 => FailureKind::Failed.exit_code(),
            Ending::Done => 0,
            Ending::Failed(kind) => kind.exit_code(),
            Ending::Cancelled => EXIT_INTERRUPTED,
        })
    };
    tokio::select! {
        ended = signals(&shutdown) => Err(ended),
        code = act => code,
    }
}

/// The shell. Ctrl-C is the shell's own affair; SIGTERM and a closed terminal end it.
async fn open_shell(global: &Global, format: Format, out: &mut Out) -> Result<u8, Ended> {
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let shutdown = CancellationToken::new();
    let talk = async {
        let reached = match Reached::running(&global.share).await? {
            Some(running) => {
                if let Some(ignored) = global.ignored() {
                    out.remark(&format!("warning: {ignored}"));
                }
                running
            }
            None => Reached::start(global, Lifetime::Running).await?,
        };
        let reached = Arc::new(reached);
        let code = shell::run(&reached, format, &global.share, out, &shutdown).await;
        if let Some(reached) = Arc::into_inner(reached) {
            reached.end().await;
        }
        Ok(code?)
    };
    let end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        shutdown.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        code = talk => code,
        () = end => unreachable!("it only cancels"),
    }
}

/// Cancels `shutdown` at the first signal and ends the process at the second; returns only if it cannot.
async fn signals(shutdown: &CancellationToken) -> Ended {
    match shutdown::on_signals(shutdown.clone()).await {
        Err(error) => Ended::Io(error),
        Ok(()) => std::future::pending().await,
    }
}

/// The program of `--on-complete`.
fn program(named: PathBuf) -> Result<OnComplete, Failed> {
    OnComplete::find(&named, std::env::var_os("PATH").as_deref())
}

/// Who only asks what others have needs no share folder: a folder of its own, if there is none.
fn folder_for(verb: &Verb, share: &Path) -> Result<Option<TempDir>, Failed> {
    let only_asks =
        matches!(verb, Verb::Show { .. } | Verb::Peers | Verb::Getip { .. } | Verb::Manifest { swarm: true, .. });
    if !only_asks || share.exists() {
        return Ok(None);
    }
    let made = tempfile::Builder::new().prefix("potluck-").tempdir();
    made.map(Some).map_err(|error| {
        let message = format!("there is no share folder {}, and none can be made for now: {error}", share.display());
        Failed::new(FailureKind::Failed, message, format!("Make it: mkdir -p {}", share.display()))
    })
}

fn no_peer(global: &Global) -> Failed {
    let share = escape(&global.share.display().to_string()).into_owned();
    let hint =
        format!("`potluck up --share {share}` starts one. If yours shares another folder, name it with --share.");
    Failed::new(FailureKind::NotFound, format!("no peer is running on the share folder {share}"), hint)
}
