//! `testcluster`: see [`checkpoint_keeper_testcluster::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    match checkpoint_keeper_testcluster::cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
