//! Every duration and bound of the scheduler, in one place, so that tests can shrink them.
//!
//! It is not read from flags or files here: whoever assembles the peer decides what a user may turn.

use std::time::Duration;

/// Durations and bounds. The defaults suit a LAN and survive a bad link.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    /// How much of an owner's time one request should take at the owner's measured rate. Long enough
    /// that the cost of a request vanishes, short enough that little is lost with a connection.
    pub run_time: Duration,
    /// The longest run in bytes; a run has at least one chunk all the same.
    pub max_run_len: u64,
    /// The length of an owner's first run in bytes; it grows fourfold with every run that arrived whole.
    pub first_run_len: u64,
    /// Requests that run at one owner side by side, while all owners are complete: the next one is under
    /// way before the last one ends.
    pub per_owner: u32,
    /// The same in a swarm, where an owner's uplink is kept busy by others and a chunk that arrives
    /// sooner can be handed on sooner.
    pub per_owner_in_swarm: u32,
    /// Upper bound of requests at one owner, on links with a long round trip where more of them help.
    pub max_per_owner: u32,
    /// Requests that run at the same time over all owners.
    pub max_requests: usize,
    /// From this round trip on, more requests than `per_owner` are tried, and kept as long as the rate grows.
    pub long_round_trip: Duration,
    /// A request without a byte for so long is closed and its run asked elsewhere (F30: within 5 s).
    pub silent_after: Duration,
    /// A request that got fewer than `slow_rate` bytes a second over this time loses its run (C11), if
    /// somebody else could take it.
    pub slow_after: Duration,
    /// Bytes a second below which an owner is slow.
    pub slow_rate: u64,
    /// First pause of a slow owner; doubles each time up to `max_slow_pause`.
    pub slow_pause: Duration,
    /// Longest pause of a slow owner.
    pub max_slow_pause: Duration,
    /// First back-off after a failure; doubles with each failure in a row, with jitter.
    pub back_off: Duration,
    /// Longest back-off.
    pub max_back_off: Duration,
    /// So many failures in a row and the owner is given up.
    pub give_up_after: u32,
    /// How long an owner stays given up, however often it is announced.
    pub give_up_pause: Duration,
    /// Longest wait that a choking owner can ask for.
    pub max_choke: Duration,
    /// After so many answers "not held" a new claim to the same chunk is no longer believed.
    pub max_not_held: u32,
    /// A request must have at least this much time left before its tail is stolen.
    pub steal_min: Duration,
    /// In the endgame, a request without a byte for so long counts as stuck: its chunk is asked again.
    pub stuck_after: Duration,
    /// The same for one that has begun, if it is also several round trips: lost packets at the end of a burst are sent again
    /// only after 200 ms and more, while the other owners have nothing left to do.
    pub stalled_after: Duration,
    /// So long after our own limit held a request back, nobody else is asked for what it owes.
    pub held_back_for: Duration,
    /// Chunks that are asked twice at the same time, at most.
    pub max_doubled: usize,
    /// A second request must take at most this part of the time that the first still needs.
    pub double_gain: f64,
    /// Time constant of the rate's moving average.
    pub rate_memory: Duration,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            run_time: Duration::from_millis(500),
            max_run_len: 16 << 20,
            first_run_len: 256 << 10,
            per_owner: 2,
            per_owner_in_swarm: 1,
            max_per_owner: 16,
            max_requests: 64,
            long_round_trip: Duration::from_millis(50),
            silent_after: Duration::from_secs(4),
            slow_after: Duration::from_secs(10),
            slow_rate: 8 << 10,
            slow_pause: Duration::from_secs(10),
            max_slow_pause: Duration::from_secs(120),
            back_off: Duration::from_millis(500),
            max_back_off: Duration::from_secs(10),
            give_up_after: 3,
            give_up_pause: Duration::from_secs(10),
            max_choke: Duration::from_secs(30),
            max_not_held: 8,
            steal_min: Duration::from_millis(100),
            stuck_after: Duration::from_millis(500),
            stalled_after: Duration::from_millis(150),
            held_back_for: Duration::from_secs(1),
            max_doubled: 8,
            double_gain: 0.6,
            rate_memory: Duration::from_secs(1),
        }
    }
}
