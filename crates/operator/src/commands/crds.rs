//! `checkpoint-keeper crds`: the custom resource definitions.

use std::io::Write;

use crate::failure::Failure;

/// Prints the custom resource definitions as YAML.
pub fn run() -> Result<(), Failure> {
    Ok(std::io::stdout().write_all(checkpoint_keeper_api::crds::crds_yaml().as_bytes())?)
}
