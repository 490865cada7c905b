//! The writer of the audit log: one JSON object per line.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use parking_lot::Mutex;
use serde::Serialize;

/// More than most lines have, in bytes.
const LINE: usize = 1024;

/// Where audit lines go.
pub struct AuditLog(Mutex<Box<dyn Write + Send>>);

impl AuditLog {
    /// Opens the log: a file, to which lines are appended, or standard output.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let output: Box<dyn Write + Send> = match path {
            Some(path) => Box::new(File::options().create(true).append(true).open(path)?),
            None => Box::new(io::stdout()),
        };
        Ok(Self(Mutex::new(output)))
    }

    /// Writes a line. Returns whether it was written.
    pub fn write(&self, record: &impl Serialize) -> bool {
        let mut line = Vec::with_capacity(LINE);
        if serde_json::to_writer(&mut line, record).is_err() {
            return false;
        }
        line.push(b'\n');
        let mut output = self.0.lock();
        // One write per line, so that lines of two processes do not mix.
        let written = output.write_all(&line).and_then(|()| output.flush());
        if let Err(error) = &written {
            tracing::error!(%error, "failed to write an audit line");
        }
        written.is_ok()
    }
}
