//! potluck tracker
