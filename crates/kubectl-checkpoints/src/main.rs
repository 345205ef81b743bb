//! `kubectl checkpoints`: see [`kubectl_checkpoints::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_checkpoints::run(std::env::args_os())
}
