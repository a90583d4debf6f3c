//! Whole peers and a real tracker in one process, over real sockets: downloads from honest and hostile owners.

mod downloads;
mod harness;
