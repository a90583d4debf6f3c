//! potluck peer
