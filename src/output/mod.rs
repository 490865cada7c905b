//! Lines that go out of the process: audit lines and the log. A reader that stalls, a full disk or a closed pipe stops the thread
//! that writes, and nobody else.

mod lines;
mod log;

pub use lines::{LineQueue, Output};
pub use log::{LogQueue, lost_log_lines};
