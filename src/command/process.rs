//! What every long-running command needs: a runtime, the log, access to the cluster, and the signal to stop.

use std::io::{self, IsTerminal};

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
    /// There is no configuration to access a cluster with.
    #[error("no access to a Kubernetes cluster; set KUBECONFIG, or run in a pod")]
    NoCluster(#[source] Box<kube::config::InferConfigError>),
}

/// How the log is written.
#[derive(Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// Starts the log, which never waits for its reader.
pub fn log_to(output: Output, format: LogFormat) -> Result<LogQueue, ProcessError> {
    let colors = match output {
        Output::Stdout => io::stdout().is_terminal(),
        Output::Stderr => io::stderr().is_terminal(),
        Output::File(_) => false,
    };
    let log = LogQueue::start(output).map_err(ProcessError::Log)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone());
    match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
        LogFormat::Text => builder.with_ansi(colors).init(),
    }
    Ok(log)
}

/// Runs a future on a new runtime.
pub fn block_on<F: Future>(mut runtime: Builder, work: F) -> Result<F::Output, ProcessError> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| ProcessError::TlsProvider)?;
    let runtime = runtime.enable_all().build().map_err(ProcessError::Runtime)?;
    Ok(runtime.block_on(work))
}

/// The configuration of the cluster: of the kubeconfig, or of the pod.
pub async fn cluster() -> Result<kube::Config, ProcessError> {
    kube::Config::infer().await.map_err(|error| ProcessError::NoCluster(Box::new(error)))
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
