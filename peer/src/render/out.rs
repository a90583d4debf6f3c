//! The two places where words go, and what happens when nobody reads them any more.
//!
//! Everything potluck says goes through an [`Out`], so that a closed pipe (`potluck show | head`) is an
//! [`io::ErrorKind::BrokenPipe`] that travels up and ends the program quietly. Remarks on standard error are a courtesy:
//! they may be lost without harm.

use std::io::{self, Write};

/// Results and remarks.
pub struct Out {
    results: Box<dyn Write + Send>,
    remarks: Box<dyn Write + Send>,
}

impl Out {
    /// Standard output and standard error.
    pub fn standard() -> Self {
        Self::new(io::stdout(), io::stderr())
    }

    /// Anything else.
    pub fn new(results: impl Write + Send + 'static, remarks: impl Write + Send + 'static) -> Self {
        Self { results: Box::new(results), remarks: Box::new(remarks) }
    }

    /// One result, of one line or more, without the last newline; it is on its way when this returns.
    ///
    /// # Errors
    /// If it cannot be written; a closed pipe is one of these.
    pub fn result(&mut self, text: &str) -> io::Result<()> {
        self.results.write_all(format!("{text}\n").as_bytes())?;
        self.results.flush()
    }

    /// One remark, of one line or more, without the last newline.
    pub fn remark(&mut self, text: &str) {
        // There is nowhere left to say that this failed.
        let _ = self.remarks.write_all(format!("{text}\n").as_bytes()).and_then(|()| self.remarks.flush());
    }
}
