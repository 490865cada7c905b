//! `credence crds`: writes the CRD manifests.

use std::io;
use std::path::PathBuf;

use credence::api;
use thiserror::Error;

#[derive(clap::Args)]
pub struct Args {
    /// Directory to write to.
    directory: PathBuf,
}

/// Why the manifests could not be written.
#[derive(Debug, Error)]
pub enum CrdsError {
    /// A schema cannot be generated.
    #[error("cannot generate the CRDs")]
    Schema(#[from] serde_json::Error),
    /// A manifest cannot be encoded.
    #[error("cannot encode {file} as YAML")]
    Yaml {
        /// Name of the file.
        file: String,
        /// Why not.
        source: Box<serde_saphyr::SerializeError>,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Writes the manifests, and prints the path of each.
pub fn run(args: &Args) -> Result<(), CrdsError> {
    for (file, manifest) in api::crds()? {
        let path = args.directory.join(&file);
        let text =
            serde_saphyr::to_string(&manifest).map_err(|source| CrdsError::Yaml { file, source: Box::new(source) })?;
        std::fs::write(&path, text).map_err(|source| CrdsError::Write { path: path.clone(), source })?;
        println!("{}", path.display());
    }
    Ok(())
}
