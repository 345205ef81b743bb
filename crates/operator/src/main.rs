//! `checkpoint-keeper`: see [`checkpoint_keeper::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    checkpoint_keeper::run(std::env::args_os())
}
