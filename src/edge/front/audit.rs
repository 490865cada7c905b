//! The audit log: one JSON object per line. A thread writes them, so no delivery waits for the reader of the log.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::output::{LineQueue, Output};

/// More than most lines have, in bytes.
const LINE: usize = 1024;
/// How long a stop waits for lines that are queued.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens to deliveries while the queue of audit lines is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// They are refused before anything is delivered.
    Refuse,
    /// They go on without an audit line, and are counted.
    Lose,
}

/// Where audit lines go.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// A file, to which lines are appended; standard output without one.
    pub file: Option<PathBuf>,
    /// Maximum memory of lines that wait, in bytes.
    pub max_queued: usize,
    /// What happens beyond that.
    pub when_full: WhenFull,
}

/// The audit log.
pub struct AuditLog {
    lines: LineQueue,
    max_queued: usize,
    when_full: WhenFull,
}

impl AuditLog {
    /// Opens the log.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(options: AuditOptions) -> io::Result<Self> {
        let AuditOptions { file, max_queued, when_full } = options;
        let lines = LineQueue::start("audit log", file.map_or(Output::Stdout, Output::File))?;
        Ok(Self { lines, max_queued, when_full })
    }

    /// Whether a delivery may begin: its line will be queued, or the installation goes on without.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.when_full == WhenFull::Lose || self.lines.queued() < self.max_queued
    }

    /// Queues a line. Returns whether it did.
    ///
    /// Lines of refused requests have half of the room, so that strangers cannot use up that of deliveries. The line of a
    /// delivery that was admitted is queued in any case: there are no more of them than requests at that moment.
    pub fn write(&self, record: &impl Serialize, is_refusal: bool) -> bool {
        let mut line = Vec::with_capacity(LINE);
        if serde_json::to_writer(&mut line, record).is_err() {
            return false;
        }
        line.push(b'\n');
        let max = match self.when_full {
            _ if is_refusal => self.max_queued / 2,
            WhenFull::Refuse => usize::MAX,
            WhenFull::Lose => self.max_queued,
        };
        self.lines.push(line, max)
    }

    /// Opens the file anew: it was moved.
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// How much of the queue is used, from 0 to 1 and a little above.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a share needs few digits")]
    pub fn used(&self) -> f64 {
        self.lines.queued() as f64 / self.max_queued as f64
    }

    /// Waits until every line that is queued is written, for a limited time.
    pub fn flush(&self) {
        if !self.lines.flush(FLUSH_TIMEOUT) {
            tracing::error!(
                bytes = self.lines.queued(),
                "audit lines are lost: they could not be written before the stop"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    /// A log that nothing can be written to.
    fn full(when_full: WhenFull) -> AuditLog {
        let file = Some(PathBuf::from("/dev/full"));
        AuditLog::open(AuditOptions { file, max_queued: 64 << 10, when_full }).unwrap()
    }

    #[test]
    fn refused_requests_leave_room_for_deliveries() {
        for when_full in [WhenFull::Refuse, WhenFull::Lose] {
            let log = full(when_full);
            let count =
                |is_refusal| (0..1000).take_while(|number| log.write(&json!({"n": number}), is_refusal)).count();
            let refusals = count(true);
            assert!((20..50).contains(&refusals) && log.admits(), "{refusals}");
            let deliveries = count(false);
            assert_eq!(deliveries == 1000, when_full == WhenFull::Refuse, "{deliveries}");
            assert_eq!(log.admits(), when_full == WhenFull::Lose);
            assert!(log.used() >= 1.0);
        }
    }

    #[test]
    fn every_line_is_written_before_the_end() {
        let file = std::env::temp_dir().join(format!("credence-audit-{}.log", std::process::id()));
        let options = AuditOptions { file: Some(file.clone()), max_queued: 1 << 20, when_full: WhenFull::Refuse };
        let log = AuditLog::open(options).unwrap();
        assert!((0..500).all(|number| log.write(&json!({"number": number}), false)));
        log.flush();
        let text = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let expected: String = (0..500).map(|number| format!("{{\"number\":{number}}}\n")).collect();
        assert_eq!(text, expected);
    }
}
