//! What every long-running command needs: a runtime, the log, access to the cluster, and the signal to stop.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::thread;

use clap::ValueEnum;
use credence::output::{LogQueue, Output};
use thiserror::Error;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Why a process could not be set up.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// There is a TLS provider already, which is a defect.
    #[error("a TLS provider is installed already")]
    TlsProvider,
    /// The log cannot be opened.
    #[error("cannot open the log")]
    Log(#[source] io::Error),
    /// A signal cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The runtime cannot be started.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// There is no configuration to access a cluster with, or it cannot be read. Why is not repeated: it may quote a token or a key.
    #[error("no access to a Kubernetes cluster; set KUBECONFIG to the path of a valid kubeconfig, or run in a pod")]
    NoCluster,
}

/// How the log is written.
#[derive(Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// What libraries log with whole answers of the API server in it, Secrets among them. The operator logs the same failures itself.
const QUOTING: [&str; 2] = ["kube_client::client=error", "kube_runtime::watcher=error"];

/// Starts the log, which never waits for its reader.
pub fn log_to(output: Output, format: LogFormat) -> Result<LogQueue, ProcessError> {
    let colors = match output {
        Output::Stdout => io::stdout().is_terminal(),
        Output::Stderr => io::stderr().is_terminal(),
        Output::File(_) => false,
    };
    let log = LogQueue::start(output).map_err(ProcessError::Log)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = QUOTING.iter().filter_map(|rule| rule.parse().ok()).fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone());
    match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
        LogFormat::Text => builder.with_ansi(colors).init(),
    }
    panic::set_hook(Box::new(log_panic));
    Ok(log)
}

/// Logs a panic: where it was, and what it says only if that is a text of the sources. One that is composed quotes values, as that of
/// a wrong index or an unexpected error does.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    // It is empty unless `RUST_BACKTRACE` is set, and names functions only.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
    tracing::error!(
        thread = thread.name().unwrap_or_default(),
        location,
        error = literal(panic.payload()),
        backtrace,
        "panicked; this is a defect of Credence"
    );
}

fn literal(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("a message that may quote values; it is left out")
}

/// Runs a future on a new runtime.
pub fn block_on<F: Future>(mut runtime: Builder, work: F) -> Result<F::Output, ProcessError> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| ProcessError::TlsProvider)?;
    let runtime = runtime.enable_all().build().map_err(ProcessError::Runtime)?;
    Ok(runtime.block_on(work))
}

/// The configuration of the cluster: of the kubeconfig, or of the pod.
pub async fn cluster() -> Result<kube::Config, ProcessError> {
    kube::Config::infer().await.map_err(|_| ProcessError::NoCluster)
}

/// A name for this process when it has no pod name: no two processes share both the host's name and the process ID.
pub fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

/// Keeps signals that mean nothing here from ending the process. SIGPIPE is ignored from the start.
pub fn ignore_signals() -> Result<(), ProcessError> {
    for ignored in [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // It stays received when nobody waits for it any more.
        drop(signal(ignored).map_err(ProcessError::Signals)?);
    }
    Ok(())
}

/// Waits for SIGTERM or SIGINT.
pub async fn stop_requested() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => _ = signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_only_what_stands_in_the_sources() {
        let secret = String::from("hüdden");
        let said = |work: Box<dyn FnOnce() + panic::UnwindSafe>| literal(&*panic::catch_unwind(work).unwrap_err());
        assert_eq!(said(Box::new(|| panic!("no lock"))), "no lock");
        let (sliced, read) = (secret.clone(), secret);
        for said in [
            said(Box::new(move || assert!(sliced[..2].is_empty()))),
            said(Box::new(move || assert_eq!(read.parse::<u8>().unwrap(), 0))),
        ] {
            assert!(said.ends_with("left out"), "{said}");
        }
    }
}
