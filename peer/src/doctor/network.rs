//! Trackers, their clock, our port, and whether a tracker reaches us there.

use std::net::SocketAddr;
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use potluck_common::address::Advertise;
use potluck_common::discovery::PORT;
use potluck_common::identity::Identity;
use potluck_common::net::asking::Asking;
use potluck_common::net::lan::Scope;
use potluck_common::net::server::{self, Limits};
use potluck_common::protocol::{
    Activity, Announce, AnnounceEvent, PROTOCOL_VERSION, PeerHealth, Rates, Sifted, TrackerInfo, is_valid_name,
};
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Finding, clock};
use crate::cli::Global;
use crate::shell::reach::{Reached, bind};
use crate::verb::{Event, Status, Verb};
use crate::wire::announce::MEND_REACH;
use crate::wire::tracker_client::{AskError, TrackerClient};

/// For an answer of a tracker, or of a running peer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a tracker of the LAN is looked for.
const LAN_PATIENCE: Duration = Duration::from_secs(2);
/// How long a tracker may take to connect back, and how often it is asked whether it has.
const REACH_PATIENCE: Duration = Duration::from_secs(8);
const REACH_EVERY: Duration = Duration::from_millis(250);
/// Our version, which a tracker should have too.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Looks at all of it, through the running peer where one runs.
pub(super) async fn examine(global: &Global) -> Vec<Finding> {
    let (status, mut findings) = running(global).await;
    let trackers = match &status {
        Some(status) => status.trackers.iter().map(|tracker| tracker.url.clone()).collect(),
        None if global.trackers.is_empty() => on_lan(global).await,
        None => global.trackers.clone(),
    };
    if trackers.is_empty() {
        let hint = "Start potluck-tracker and name it with --tracker HOST:7700. Without one, the first `potluck up` of a LAN hosts one.";
        findings.push(Finding::warn("tracker", "none is named and none answers on this network", hint));
    }
    let mut answering = Vec::new();
    for url in &trackers {
        let client = Url::parse(url).ok().and_then(|url| TrackerClient::new(url, PATIENCE).ok());
        let Some(client) = client else { continue };
        let asked = client.introduce().await;
        if let Ok((_, date)) = &asked {
            findings.push(clock::examine(date.as_deref(), Timestamp::now()));
            answering.push(client);
        }
        findings.push(tracker(url, asked.map(|(info, _)| info)));
    }
    match &status {
        Some(status) => findings.extend(reach_of_running(status)),
        None => findings.extend(ports(global, answering.first()).await),
    }
    findings
}

/// The status of the peer that runs on the share folder, if one does.
async fn running(global: &Global) -> (Option<Status>, Vec<Finding>) {
    match Reached::running(&global.share).await {
        Ok(None) => (None, Vec::new()),
        Ok(Some(running)) => match running.ask(Verb::Status, PATIENCE).await {
            Some(Event::Status(status)) => {
                let message = format!("{} runs on this folder, at {}", status.name, status.base_url);
                (Some(status), vec![Finding::ok("peer", message)])
            }
            _ => {
                let hint = "Look into its log; `potluck stop` ends it, `potluck up` starts another.";
                (None, vec![Finding::fail("peer", "a peer runs on this folder and does not answer", hint)])
            }
        },
        Err(failed) => (None, vec![Finding::fail("peer", failed.message, failed.hint)]),
    }
}

async fn on_lan(global: &Global) -> Vec<String> {
    let Ok(mut asking) = Asking::open(global.swarm.clone(), Scope::of(global.listen.ip()), PORT) else {
        return Vec::new();
    };
    let looking = async {
        loop {
            asking.ask().await;
            if let Ok(found) = timeout(LAN_PATIENCE / 4, asking.heard()).await {
                return vec![format!("http://{found}")];
            }
        }
    };
    timeout(LAN_PATIENCE, looking).await.unwrap_or_default()
}

fn tracker(url: &str, asked: Result<TrackerInfo, AskError>) -> Finding {
    match asked {
        Ok(info) if !info.version.is_empty() && info.version != VERSION => Finding::warn(
            "tracker",
            format!("{url} is potluck {}, this is {VERSION}", info.version),
            "Bring both to the same version: update the older one.",
        ),
        Ok(info) => Finding::ok("tracker", format!("{url} answers, for the swarm {}", info.swarm)),
        Err(AskError::NotFound) => {
            Finding::fail("tracker", format!("{url} is no potluck tracker"), "Check host and port of --tracker.")
        }
        Err(AskError::Refused(problem)) => {
            Finding::fail("tracker", format!("{url} refuses us: {}", problem.title), problem.detail)
        }
        Err(error) => Finding::fail(
            "tracker",
            format!("{url} does not answer: {error}"),
            "Is potluck-tracker running there, and its port open in the firewall? curl URL/healthz shows it.",
        ),
    }
}

fn reach_of_running(status: &Status) -> Option<Finding> {
    let base_url = &status.base_url;
    let told = status.trackers.iter().filter_map(|tracker| tracker.reaches_us.map(|reaches| (&tracker.url, reaches)));
    told.max_by_key(|(_, reaches)| !reaches).map(|(url, reaches)| reach(url, base_url, reaches))
}

fn reach(tracker: &str, base_url: &str, reaches: bool) -> Finding {
    if reaches {
        return Finding::ok("reach", format!("{tracker} reaches us at {base_url}"));
    }
    let message = format!("{tracker} cannot reach us at {base_url}, so others hardly can");
    let mut hint = MEND_REACH.to_owned();
    hint[..1].make_ascii_uppercase();
    Finding::fail("reach", message, hint + ".")
}

/// Listens as a peer would, and lets a tracker connect back.
async fn ports(global: &Global, tracker: Option<&TrackerClient>) -> Vec<Finding> {
    let listener = match bind(global).await {
        Ok(listener) => listener,
        Err(failed) => return vec![Finding::fail("ports", failed.message, failed.hint)],
    };
    let Ok(address) = listener.local_addr() else { return Vec::new() };
    let mut findings = vec![Finding::ok("ports", format!("{} can be listened at", global.listen))];
    if let Some(tracker) = tracker {
        findings.push(connect_back(global, tracker, listener, address).await);
    }
    findings
}

/// Announces a peer without files, which answers for itself and leaves as soon as the tracker has said whether it reaches it.
async fn connect_back(global: &Global, tracker: &TrackerClient, listener: TcpListener, address: SocketAddr) -> Finding {
    let mut secret = [0; 32];
    if let Err(error) = getrandom::fill(&mut secret) {
        return Finding::warn("reach", format!("no identity can be made: {error}"), "");
    }
    let identity = Identity::from_secret(&secret);
    let health = PeerHealth { status: "ok".into(), peer_id: identity.peer_id() };
    let router = Router::new().route("/healthz", get(move || async { Json(health) }));
    let ends = CancellationToken::new();
    let serving = server::run(listener, router, Limits::default(), ends.clone());
    let asking = async {
        let mut message = introduction(&identity, global.name.as_deref(), address.port(), global.advertise.clone());
        let told = timeout(REACH_PATIENCE, async {
            loop {
                let reply = tracker.announce(&message, &identity).await?;
                if let Some(reaches) = reply.reachable {
                    return Ok::<_, AskError>((reply.base_url, reaches));
                }
                (message.seq, message.event) = (message.seq + 1, AnnounceEvent::Heartbeat);
                tokio::time::sleep(REACH_EVERY).await;
            }
        });
        let told = told.await;
        (message.seq, message.event) = (message.seq + 1, AnnounceEvent::Stopped);
        let _left_by_its_lease = timeout(PATIENCE, tracker.announce(&message, &identity)).await;
        ends.cancel();
        told
    };
    let ((), told) = tokio::join!(serving, asking);
    let name = tracker.name();
    match told {
        Ok(Ok((base_url, reaches))) => reach(&name, &base_url, reaches),
        Ok(Err(AskError::Refused(problem))) => {
            Finding::fail("reach", format!("{name} does not take our announce: {}", problem.title), problem.detail)
        }
        Ok(Err(error)) => Finding::fail("reach", format!("{name} does not take our announce: {error}"), "See its log."),
        Err(_late) => Finding::warn(
            "reach",
            format!("{name} does not say whether it reaches us"),
            "It may be busy or older. From another machine: curl http://THIS-HOST:PORT/healthz while `potluck up` runs.",
        ),
    }
}

fn introduction(identity: &Identity, name: Option<&str>, port: u16, advertise: Option<Advertise>) -> Announce {
    let name = format!("{} (doctor)", name.unwrap_or("potluck"));
    Announce {
        protocol: PROTOCOL_VERSION,
        event: AnnounceEvent::Started,
        peer_id: identity.peer_id(),
        public_key: identity.public_key(),
        name: if is_valid_name(&name) { name } else { "doctor".into() },
        port,
        advertise,
        generation: 1,
        instance: fastrand::u64(..),
        seq: 1,
        base: 0,
        revision: 0,
        added: Vec::new(),
        removed: Vec::new(),
        partial: Vec::new(),
        sync: None,
        index: Sifted::default(),
        rates: Rates::default(),
        activity: Activity::default(),
    }
}
