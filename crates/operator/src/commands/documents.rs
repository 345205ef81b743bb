//! What is made from the description of the command line: completions, manual pages, and the version.

use std::io::{self, Write};

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Arguments, CompletionArguments, ManArguments};
use crate::failure::Failure;
use crate::output::text::safe;

/// Prints a shell's completion script.
pub fn completion(arguments: &CompletionArguments) -> Result<(), Failure> {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    // It panics where it cannot write, and a closed pipe is no error.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    Ok(io::stdout().write_all(&script)?)
}

/// Writes a manual page for the program and for each command.
pub fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let wrong = || format!("cannot write manual pages to {}", safe(&directory.to_string_lossy()));
    std::fs::create_dir_all(directory).with_context(wrong)?;
    clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), directory)
        .with_context(wrong)?;
    Ok(())
}

/// Prints name and version, as `--version` does.
pub fn version() -> Result<(), Failure> {
    Ok(io::stdout().write_all(Arguments::command().render_version().as_bytes())?)
}
