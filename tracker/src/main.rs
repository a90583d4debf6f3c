//! The tracker's program: arguments, logging, bind, and one call.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use futures::FutureExt;
use potluck_common::address::{Reach, parse_listen};
use potluck_common::discovery::{self, SwarmName};
use potluck_common::net::client::{ClientConfig, client};
use potluck_common::net::server::raise_descriptor_limit;
use potluck_common::net::{log, shutdown, supervisor};
use potluck_common::settings::{Scope, Settings};
use potluck_tracker::{CancellationToken, Config, Limits, Swarm, Tracker, console};
use tokio::net::TcpListener;

/// potluck's tracker: knows who is there and who holds what.
#[derive(Debug, Parser)]
#[command(name = "potluck-tracker", version)]
struct Args {
    /// Where to listen.
    #[arg(long, env = "POTLUCK_LISTEN", value_name = "ADDR:PORT", default_value = "0.0.0.0:7700", value_parser = parse_listen)]
    listen: SocketAddr,
    /// Folder of the store, which survives restarts.
    #[arg(long, env = "POTLUCK_DATA", value_name = "DIR", default_value = "tracker-data")]
    data: PathBuf,
    /// Keep nothing on disk.
    #[arg(long, env = "POTLUCK_MEMORY", value_parser = clap::builder::FalseyValueParser::new())]
    memory: bool,
    /// How often peers announce themselves.
    #[arg(long, env = "POTLUCK_HEARTBEAT", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    heartbeat: Duration,
    /// How long a peer is listed without a heartbeat.
    #[arg(long, env = "POTLUCK_LEASE", value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    lease: Duration,
    /// Write a log file a day into this folder too.
    #[arg(long, env = "POTLUCK_LOG_DIR", value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// How log lines are written: text, or json for programs that gather them.
    #[arg(long, env = "POTLUCK_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: log::Format,
    /// A name with dots that people reach this host by (repeatable).
    #[arg(long = "host", env = "POTLUCK_HOST", value_name = "NAME", value_delimiter = ',')]
    hosts: Vec<String>,
    /// The swarm this tracker is for; several of them share a LAN without meeting.
    #[arg(long, env = "POTLUCK_SWARM", value_name = "NAME", default_value = "default")]
    swarm: SwarmName,
    /// Do not let peers find this tracker by themselves: they need its address
    #[arg(long, env = "POTLUCK_NO_LAN", value_parser = clap::builder::FalseyValueParser::new())]
    no_lan: bool,
    /// Ask the tracker that runs at --listen whether it is well, and exit with 0 or 1.
    #[arg(long)]
    health: bool,
    /// The file of settings [default: ~/.config/potluck/potluck.toml, or else /etc/potluck/potluck.toml]
    #[arg(long, env = "POTLUCK_CONFIG", value_name = "FILE")]
    config: Option<OsString>,
    /// Print the settings that hold, and where each is from.
    #[arg(long)]
    print_config: bool,
    /// Write the man page into this folder (for packages).
    #[arg(long, hide = true, value_name = "DIR")]
    write_man: Option<PathBuf>,
}

/// Its settings stand in the table `[tracker]`.
const SCOPE: Scope = Scope { table: "tracker", verb: None };

impl Args {
    /// What was typed, above the environment, above the file. With `--print-config` the text to print.
    fn of_process() -> Result<(Self, Option<String>), clap::Error> {
        let args: Vec<_> = std::env::args_os().collect();
        let settings = Settings::of(&Self::command(), SCOPE, &args, |name| std::env::var_os(name))?;
        let command = settings.under(Self::command(), SCOPE);
        let parsed = Self::from_arg_matches(&command.clone().try_get_matches_from(&args)?)?;
        let shown = parsed.print_config.then(|| settings.effective(&command, SCOPE, &args)).transpose()?;
        Ok((parsed, shown.map(|effective| effective.to_string())))
    }
}

fn main() -> ExitCode {
    let (args, shown) = Args::of_process().unwrap_or_else(|error| error.exit());
    if let Some(folder) = &args.write_man {
        let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Args::command(), folder));
        return written.map_or_else(|error| fail(&error.into()), |()| ExitCode::SUCCESS);
    }
    if let Some(text) = shown {
        say(&text);
        return ExitCode::SUCCESS;
    }
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(start(args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One line: what happened, and what to do next.
fn fail(error: &anyhow::Error) -> ExitCode {
    #[allow(clippy::print_stderr)]
    {
        eprintln!("potluck-tracker: {error:#}");
    }
    ExitCode::FAILURE
}

async fn start(args: Args) -> anyhow::Result<()> {
    if args.health {
        return health(args.listen).await;
    }
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let to_stderr = if on_terminal { log::Stderr::Warnings } else { log::Stderr::Lines };
    let _log = log::init("tracker", args.log_dir.as_deref(), to_stderr, args.log_format)
        .context("cannot write the log folder; make it writable or name another with --log-dir")?;
    let limits = Limits::default().within_descriptors(raise_descriptor_limit());
    let config = Config {
        swarm: args.swarm,
        found_at: (!args.no_lan).then_some(discovery::PORT),
        data: (!args.memory).then_some(args.data),
        heartbeat: args.heartbeat,
        lease: args.lease,
        hosts: args.hosts,
        limits,
        ..Config::default()
    };
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}; choose another address or port with --listen", args.listen))?;
    let address = listener.local_addr().context("the listening socket has no address")?;
    let tracker = Tracker::open(config).await?;
    let stop = CancellationToken::new();
    let mut signals = pin!(shutdown::on_signals(stop.clone()));
    // Polled once: nobody is told that we are ready before a signal would end us properly.
    if let Some(failed) = signals.as_mut().now_or_never() {
        failed.context("cannot listen for signals")?;
    }
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the swarm is open: whoever reaches this address can join it and see what is shared");
    }
    say(&format!("tracker ready on http://{address}"));
    supervisor::ready();
    let console = on_terminal.then(|| open_console(tracker.swarm().clone(), stop.clone())).transpose()?;
    let watched = supervisor::run(stop.clone());
    let serving = tracker.serve(listener, stop);
    let served = tokio::select! {
        // In this order, so that systemd hears of the end before we have ended.
        biased;
        never = watched => match never {},
        served = serving => served,
        failed = signals => return failed.context("cannot listen for signals"),
    };
    // It puts the terminal back as it was.
    if let Some(console) = console {
        let _ = console.join();
    }
    Ok(served?)
}

/// A thread of its own: reading a terminal blocks. It ends with `stop`, and `stop` with it.
fn open_console(swarm: Swarm, stop: CancellationToken) -> anyhow::Result<JoinHandle<()>> {
    let stopped = Arc::new(AtomicBool::new(false));
    let (token, flag) = (stop.clone(), stopped.clone());
    tokio::spawn(async move {
        token.cancelled().await;
        flag.store(true, Ordering::Relaxed);
    });
    let console = std::thread::Builder::new().name("console".into());
    console.spawn(move || console::run(&swarm, &stop, stopped)).context("cannot start the console")
}

/// What goes to standard output: the one line that scripts wait for, or settings.
#[allow(clippy::print_stdout)]
fn say(line: &str) {
    use std::io::Write;
    println!("{line}");
    // Whoever reads it may be gone; that is no reason to end.
    let _ = std::io::stdout().flush();
}

/// For a container's HEALTHCHECK.
async fn health(listen: SocketAddr) -> anyhow::Result<()> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let timeout = Duration::from_secs(2);
    let config = ClientConfig { connect_timeout: timeout, read_timeout: timeout, reach: Reach::SameHost };
    let url = format!("http://{}/healthz", SocketAddr::new(ip, listen.port()));
    let answer = client(&config)?.get(&url).send().await;
    let answer = answer.map_err(|error| {
        let error = anyhow::Error::from(error);
        anyhow!("no tracker answers at {listen}; start it, or say with --listen where it is: {}", error.root_cause())
    })?;
    answer.error_for_status().context("the tracker is not well")?;
    Ok(())
}
