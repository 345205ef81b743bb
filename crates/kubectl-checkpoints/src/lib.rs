//! The commands of `kubectl checkpoints`.
//!
//! [`cli`] is what can be asked for, [`commands`] has a file for each command. [`session`] reads the cluster, and notes
//! what it could not see; [`agents`] asks agents for what only they know.

pub mod agents;
pub mod cli;
pub mod commands;
pub mod failure;
pub mod fitness;
pub mod kinds;
pub mod quotas;
pub mod session;
pub mod show;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Arguments, Command};
use crate::commands::completion::Begun;
use crate::failure::Failure;
use crate::session::Session;

/// Runs a command line to its end.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is no reason to complain about an unprinted help text.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    arguments.global.color.apply();
    match work(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn work(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { global, command } = arguments;
    match command {
        Command::Completion(arguments) => return commands::completion::script(&arguments),
        Command::Man(arguments) => return commands::completion::man(&arguments),
        Command::Version => return commands::completion::version(),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let begun = match &command {
            Command::Complete(arguments) => Begun::of(arguments),
            _ => None,
        };
        let global = begun.as_ref().map_or(&global, |begun| &begun.global);
        let session = Session::open(global).await?;
        let work = async {
            match command {
                Command::List(arguments) => commands::list::run(&session, &arguments).await,
                Command::Show(arguments) => commands::show::run(&session, &arguments).await,
                Command::Explain(arguments) => commands::explain::run(&session, &arguments).await,
                Command::Plan(arguments) => commands::plan::run(&session, &arguments).await,
                Command::Usage(arguments) => commands::usage::run(&session, &arguments).await,
                Command::Pin(arguments) => commands::pin::pin(&session, &arguments).await,
                Command::Unpin(arguments) => commands::pin::unpin(&session, &arguments).await,
                Command::Discard(arguments) => commands::discard::run(&session, &arguments).await,
                Command::Create(arguments) => commands::create::run(&session, &arguments).await,
                Command::Doctor => commands::doctor::run(&session).await,
                Command::Complete(arguments) => {
                    commands::completion::candidates(&session, &arguments, begun.as_ref()).await
                }
                Command::Completion(_) | Command::Man(_) | Command::Version => Ok(()),
            }
        };
        // Its future holds those of all commands.
        let outcome = Box::pin(work).await;
        session.say_unseen();
        outcome
    })
}
