//! The `potluck` binary: arguments, logging, signals, one call. What it prints it prints through [`Out`].

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use potluck_common::net::{log, shutdown};
use potluck_peer::cli::{Action, Cli, Global};
use potluck_peer::render::{Ending, Format, Look, Out, Renderer, escape, follow};
use potluck_peer::shell::reach::{Reached, bind};
use potluck_peer::shell::{self, EXIT_INTERRUPTED, show_failure};
use potluck_peer::verb::{Failed, FailureKind, Verb};
use potluck_peer::{Lifetime, Peer};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What threads that sit in a read of the terminal are given at the end.
const LEAVE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let cli = Cli::parse();
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
    // A peer without a terminal tells its log to whoever started it; a person at a terminal wants answers.
    let is_daemon = matches!(cli.action, Action::Up) && !io::stderr().is_terminal();
    let stderr = if is_daemon { log::Stderr::Lines } else { log::Stderr::Warnings };
    let _written_at_the_end = log::init("potluck", cli.global.log_dir.as_deref(), stderr).map_err(|error| {
        let dir = cli.global.log_dir.as_deref().unwrap_or_else(|| "".as_ref()).display();
        let hint = "Give a folder that can be written with --log-dir.";
        Failed::new(FailureKind::Failed, format!("cannot log to {dir}: {error}"), hint)
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let Cli { global, action } = cli;
        match action {
            Action::Up => up(&global, out).await,
            Action::Shell => open_shell(&global, format, out).await,
            action => {
                let base = std::env::current_dir()?;
                let verb = action.verb(&base).expect("up and shell are dealt with above");
                one_verb(&global, verb, format, out).await
            }
        }
    });
    runtime.shutdown_timeout(LEAVE);
    code
}

/// `up`: the peer in the foreground.
async fn up(global: &Global, out: &mut Out) -> Result<u8, Ended> {
    let shutdown = CancellationToken::new();
    let serve = async {
        let listener = bind(global).await?;
        let peer = Peer::start(listener, global.config()?, Lifetime::Running, shutdown.clone()).await?;
        let (name, url) = (escape(peer.name()).into_owned(), peer.listen_url().to_owned());
        let ready = format!("peer {name} ready on {url} sharing {}", peer.share().display());
        if let Err(error) = out.result(&ready) {
            tracing::warn!(%error, "cannot write the ready line");
        }
        peer.wait().await;
        Ok(0)
    };
    tokio::select! {
        ended = signals(&shutdown) => Err(ended),
        code = serve => code,
    }
}

/// A verb through the running peer, or through one that lives as long as the verb.
async fn one_verb(global: &Global, verb: Verb, format: Format, out: &mut Out) -> Result<u8, Ended> {
    let shutdown = CancellationToken::new();
    let act = async {
        let look = Look::of_process();
        let reached = match Reached::running(&global.share).await? {
            Some(running) => running,
            None if verb == Verb::Stop => return Err(no_peer(global).into()),
            None => {
                let started = Reached::start(global, Lifetime::Command).await?;
                if io::stderr().is_terminal() && format == Format::Text {
                    out.remark("note: no peer runs on this folder, so one was started for this command");
                }
                started
            }
        };
        let mut renderer = Renderer::new(&verb, format, look, out);
        let ending = follow(reached.run(verb), &mut renderer, shutdown.cancelled()).await;
        reached.end().await;
        Ok(match ending? {
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
            Some(running) => running,
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

fn no_peer(global: &Global) -> Failed {
    let share = escape(&global.share.display().to_string()).into_owned();
    let hint =
        format!("`potluck up --share {share}` starts one. If yours shares another folder, name it with --share.");
    Failed::new(FailureKind::NotFound, format!("no peer is running on the share folder {share}"), hint)
}
