//! Keeps the terminal from writing `^C` into the bars.
//!
//! Bars fill their lines to the last column, so the two characters that a terminal echoes for Ctrl-C wrap to a line of
//! their own, everything moves up by one, and clearing the bars leaves the topmost behind. Only that echo is switched
//! off, and only in the foreground: a program in the background that changes the terminal is stopped by it. If we are
//! killed before it is switched on again, the terminal works on, without `^C`.

use std::io::{Stdin, stdin};

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetpgrp, tcsetattr};

/// While it lives, control characters are not echoed.
pub struct NoControlEcho {
    terminal: Stdin,
}

impl NoControlEcho {
    /// Switches the echo off; nothing, if standard input is no terminal of ours or does not echo anyway.
    pub fn begin() -> Option<Self> {
        let terminal = stdin();
        switch(&terminal, Switch::Off).then_some(Self { terminal })
    }
}

impl Drop for NoControlEcho {
    fn drop(&mut self) {
        switch(&self.terminal, Switch::On);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Switch {
    On,
    Off,
}

/// Whether anything was switched.
fn switch(terminal: &Stdin, to: Switch) -> bool {
    let is_ours = tcgetpgrp(terminal).is_ok_and(|foreground| foreground == getpgrp());
    let Ok(mut modes) = tcgetattr(terminal) else { return false };
    let is_on = modes.local_modes.contains(LocalModes::ECHOCTL);
    if !is_ours || is_on == (to == Switch::On) {
        return false;
    }
    modes.local_modes.set(LocalModes::ECHOCTL, to == Switch::On);
    tcsetattr(terminal, OptionalActions::Now, &modes).is_ok()
}
