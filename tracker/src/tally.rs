//! What the tracker counts of what happens in its swarm; everything else in its metrics is read from the registry.

use prometheus::{IntCounter, IntCounterVec, Opts};

/// What the metrics of the tracker begin with.
pub(crate) const PREFIX: &str = "potluck_tracker";

/// Counters. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Announces whose signature holds, by event and what became of them.
    pub(crate) announces: IntCounterVec,
    /// Leases that ran out.
    pub(crate) expired: IntCounter,
    /// Peers that were gone for so long that their catalogues were forgotten.
    pub(crate) forgotten: IntCounter,
    /// Writes that the store did not take.
    pub(crate) store_errors: IntCounter,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace(PREFIX);
        let counter = |name, help| IntCounter::with_opts(opts(name, help)).expect("the name is fixed");
        let announces = opts("announces_total", "Announces with a valid signature, by event and result.");
        Self {
            announces: IntCounterVec::new(announces, &["event", "result"]).expect("the name is fixed"),
            expired: counter("leases_expired_total", "Peers that left without a word: their leases ran out."),
            forgotten: counter("peers_forgotten_total", "Absent peers whose catalogues were forgotten."),
            store_errors: counter("store_errors_total", "Writes that the store on disk did not take."),
        }
    }
}
