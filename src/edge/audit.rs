//! One line for each attempt, refusals included: the record of what came in and what became of it.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::outcome::{Outcome, Why};

/// Everything that is on record of one attempt. What the caller says is bounded and escaped; keys and bodies never are here.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When the edge had read its head.
    pub time: Timestamp,
    /// `namespace/name` of the endpoint, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `Inbound` or `Outbound`, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    /// What became of it, and why.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// ID of the delivery: the sender's, or else made from what is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The key that verified it, or the keys that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Address of the caller.
    pub source: IpAddr,
    /// SPIFFE ID or first DNS name of the caller's certificate, or else what its token proves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// Where it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What the target answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_status: Option<u16>,
    /// Why the destination did not take it, where it went to the dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Why>,
    /// SHA-256 of the body, in hexadecimal, once it was read.
    #[serde(rename = "bodySHA256", skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
    /// How long it took.
    #[serde(rename = "durationMilliseconds", serialize_with = "milliseconds")]
    pub duration: Duration,
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // To the microsecond: more digits say nothing.
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

/// Where audit lines go.
pub struct Log(Mutex<Box<dyn Write + Send>>);

impl Log {
    /// Lines go to a file, which is appended to, or to standard output.
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

    /// Writes a line. Says whether it is on record.
    pub fn write(&self, attempt: &Attempt) -> bool {
        let Ok(mut line) = serde_json::to_vec(attempt) else { return false };
        line.push(b'\n');
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One write for one line, so that lines of two processes do not mix.
        let written = output.write_all(&line).and_then(|()| output.flush());
        if let Err(error) = &written {
            tracing::error!(%error, "an attempt could not be put on record");
        }
        written.is_ok()
    }
}
