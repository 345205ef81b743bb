//! The commands of `checkpoint-keeper`.
//!
//! [`cli`] is what can be asked for, [`commands`] has a file for each command, [`output`] shows results to people and programs.

pub mod cli;
pub mod commands;
pub mod failure;
mod logging;
pub mod output;
#[cfg(test)]
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use cli::{Arguments, Command};

/// Runs a command line to its end.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    checkpoint_keeper_sys::memory::give_large_blocks_back();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is no reason to complain about an unprinted help text.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // Agent and controller log, how they end too; the others speak to a person at a terminal.
    let is_logged = match &arguments.command {
        Command::Agent(arguments) => Some(&arguments.log),
        Command::Controller(arguments) => Some(&arguments.log),
        Command::Gc(_)
        | Command::Inspect(_)
        | Command::Crds
        | Command::Completion(_)
        | Command::Man(_)
        | Command::Version => None,
    };
    is_logged.into_iter().for_each(logging::start);
    let is_logged = is_logged.is_some();
    let result = match arguments.command {
        Command::Gc(arguments) => commands::gc::run(&arguments),
        Command::Inspect(arguments) => commands::inspect::run(&arguments),
        Command::Agent(arguments) => commands::agent::run(arguments),
        Command::Controller(arguments) => commands::controller::run(arguments),
        Command::Crds => commands::crds::run(),
        Command::Completion(arguments) => commands::documents::completion(&arguments),
        Command::Man(arguments) => commands::documents::man(&arguments),
        Command::Version => commands::documents::version(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if is_logged => failure.log(),
        Err(failure) => failure.report(),
    }
}
