//! The command line: what there is to run, and the options of each.

mod controller;
mod crds;
mod edge;
mod process;

use std::thread::available_parallelism;

use clap::{Parser, Subcommand};
use credence::output::Output;
use thiserror::Error;
use tokio::runtime::Builder;

/// Gives every service in a Kubernetes cluster its own verifiable identity, and sets up brokers and webhooks with it.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    ///
    /// If an option is repeated, the last value wins, so that a wrapper can change what a chart sets.
    Controller(controller::Args),
    /// Run one role of the edge, which faces callers from outside of the cluster.
    ///
    /// If an option is repeated, the last value wins, so that a wrapper can change what a chart sets.
    Edge(edge::Args),
    /// Write the CRD manifests into a directory, one file per kind.
    Crds(crds::Args),
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The process could not be set up.
    #[error(transparent)]
    Process(#[from] process::ProcessError),
    /// The operator failed.
    #[error(transparent)]
    Controller(#[from] controller::ControllerError),
    /// The edge failed.
    #[error(transparent)]
    Edge(#[from] edge::EdgeError),
    /// The manifests could not be written.
    #[error(transparent)]
    Crds(#[from] crds::CrdsError),
}

/// Parses the command line and runs the command.
///
/// # Errors
/// Why the command failed.
pub fn run() -> Result<(), CommandError> {
    match Cli::parse().command {
        Command::Controller(args) => {
            let log = process::log_to(Output::Stdout, args.log_format)?;
            let mut runtime = Builder::new_multi_thread();
            // A step of work that takes long must not hold up the lease.
            runtime.worker_threads(available_parallelism().map_or(2, |threads| threads.get().max(2)));
            let ended = process::block_on(runtime, controller::run(args));
            log.flush();
            ended??;
        }
        Command::Edge(args) => {
            // The audit log may go to standard output.
            let log = process::log_to(Output::Stderr, args.log_format)?;
            // Connections have threads of their own.
            let ended = process::block_on(Builder::new_current_thread(), edge::run(args));
            log.flush();
            ended??;
        }
        Command::Crds(args) => crds::run(&args)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_option_that_is_repeated_has_its_last_value() {
        for arguments in [
            &["credence", "edge"][..],
            &["credence", "edge", "--serve=webhooks", "--serve", "webhooks"],
            &["credence", "edge", "--listen=127.0.0.1:1", "--listen", "127.0.0.1:2"],
            &["credence", "controller", "--lease-seconds=2", "--lease-seconds=3"],
        ] {
            assert!(Cli::try_parse_from(arguments).is_ok(), "{arguments:?}");
        }
        assert!(Cli::try_parse_from(["credence", "edge", "--serve=other"]).is_err());
    }
}
