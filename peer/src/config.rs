//! What a peer is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use potluck_common::address::Advertise;
use potluck_common::net::server::Limits;
use potluck_common::protocol::SyncMode;

use crate::discovery::DiscoveryConfig;
use crate::limit::schedule::Limit;
use crate::on_complete::OnComplete;
use crate::scheduler::SchedulerConfig;

/// Everything a peer can be told. Tests shrink the durations.
#[derive(Debug, Clone)]
pub struct Config {
    /// The share folder; it must exist.
    pub share: PathBuf,
    /// Base URLs of trackers: all are announced to, the first that answers is asked.
    pub trackers: Vec<String>,
    /// How trackers are looked for if none is given; `None`: not at all.
    pub discovery: Option<DiscoveryConfig>,
    /// What people call this peer.
    pub name: String,
    /// The address to be handed out instead of the one the tracker sees.
    pub advertise: Option<Advertise>,
    /// What strangers may hold of our listener.
    pub limits: Limits,
    /// How fast contents are sent at first; the verb `limit` changes it.
    pub limit_up: Limit,
    /// How fast contents are received at first.
    pub limit_down: Limit,
    /// How the share folder is synced at first; the verb `sync` changes it.
    pub sync: Option<SyncMode>,
    /// Globs of what a peer that only receives takes; empty: everything.
    pub include: Vec<String>,
    /// Globs of what it does not take.
    pub exclude: Vec<String>,
    /// How long the trash keeps what sync took out of the folder.
    pub trash_keep: Duration,
    /// What is run for each file that has come.
    pub on_complete: Option<OnComplete>,
    /// Uploads served at once; further requests are told to come back.
    pub upload_slots: usize,
    /// What an upload without a slot is told to wait, in whole seconds.
    pub upload_retry_after: Duration,
    /// Between two full scans of the share folder, at least. A scan that takes long stretches it.
    pub rescan_interval: Duration,
    /// Changes in the share folder are gathered for this long before they are looked at.
    pub watch_coalesce: Duration,
    /// A file is hashed once it has been left alone for this long.
    pub settle: Duration,
    /// Gathers catalogue changes into one announce.
    pub announce_coalesce: Duration,
    /// First pause before a tracker that does not answer is asked again; doubles up to the next.
    pub tracker_retry_min: Duration,
    /// Longest pause before a tracker that does not answer is asked again.
    pub tracker_retry_max: Duration,
    /// For an answer of the tracker.
    pub tracker_timeout: Duration,
    /// First pause before a tracker is asked which peers to remember; doubles up to a minute.
    pub remember_after: Duration,
    /// For an owner to start answering.
    pub owner_timeout: Duration,
    /// For an origin to start answering, and to send the next byte.
    pub origin_timeout: Duration,
    /// First pause, doubled each time, before an origin that broke off is asked again.
    pub origin_pause: Duration,
    /// Owners of a running download are asked for again at this interval.
    pub owners_refresh: Duration,
    /// A download without a usable owner waits this long for one before it fails.
    pub owners_patience: Duration,
    /// The have-set of a running download is made durable at this interval…
    pub record_interval: Duration,
    /// …or after this many bytes, whichever comes first.
    pub record_bytes: u64,
    /// Bytes of chunks in flight that have not been written yet, in all downloads together.
    pub max_buffered: usize,
    /// Files of one `download` that are on their way at once, small ones that wait for their names among them.
    pub max_files: usize,
    /// How requests are chosen.
    pub scheduler: SchedulerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            share: PathBuf::from("share"),
            trackers: Vec::new(),
            discovery: None,
            name: "peer".into(),
            advertise: None,
            limits: Limits::default(),
            limit_up: Limit::OFF,
            limit_down: Limit::OFF,
            sync: None,
            include: Vec::new(),
            exclude: Vec::new(),
            trash_keep: Duration::from_secs(30 * 24 * 60 * 60),
            on_complete: None,
            upload_slots: 256,
            upload_retry_after: Duration::from_secs(1),
            rescan_interval: Duration::from_secs(60),
            watch_coalesce: Duration::from_millis(50),
            settle: Duration::from_millis(100),
            announce_coalesce: Duration::from_millis(20),
            tracker_retry_min: Duration::from_millis(250),
            tracker_retry_max: Duration::from_secs(60),
            tracker_timeout: Duration::from_secs(10),
            remember_after: Duration::from_secs(1),
            owner_timeout: Duration::from_secs(5),
            origin_timeout: Duration::from_secs(30),
            origin_pause: Duration::from_millis(500),
            owners_refresh: Duration::from_secs(2),
            owners_patience: Duration::from_secs(20),
            record_interval: Duration::from_secs(1),
            record_bytes: 64 << 20,
            max_buffered: 48 << 20,
            max_files: 512,
            scheduler: SchedulerConfig::default(),
        }
    }
}
