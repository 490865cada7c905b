//! The log of the process, written by a thread of its own.

use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

use super::lines::{LineQueue, Output};

/// Maximum memory of lines that wait, in bytes. Beyond that they are lost, and counted.
const MAX_QUEUED: usize = 4 << 20;
/// How long the end of the process waits for lines that are queued.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A process has one log.
static LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

/// The counter of log lines that were lost because nobody took them.
#[must_use]
pub fn lost_log_lines() -> Counter {
    LOST.clone()
}

/// The queue of the log. Clones are the same queue.
#[derive(Clone)]
pub struct LogQueue(LineQueue);

impl LogQueue {
    /// Starts the thread that writes to this output.
    ///
    /// # Errors
    /// When the output cannot be opened, or the thread not be started.
    pub fn start(output: Output) -> io::Result<Self> {
        LineQueue::start("log", output).map(Self)
    }

    /// Waits until what is queued is written, for a second at most.
    pub fn flush(&self) {
        let _ = self.0.flush(FLUSH_TIMEOUT);
    }
}

impl io::Write for &LogQueue {
    /// Takes one line: the subscriber formats each event as a whole before it writes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.0.push(line.to_vec(), MAX_QUEUED) {
            LOST.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}
