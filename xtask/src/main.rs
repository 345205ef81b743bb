//! `cargo xtask`: everything that is done with this repository but build it.

mod bench;
mod book;
mod cargo;
mod chart_files;
mod cluster;
mod demo;
mod generate;
mod image;
mod manifests;
mod release;
mod repository;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Tests, benchmarks and generated files of this repository")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every check and every test
    Test(test::Arguments),
    /// Measure the budgets beside their baselines
    Bench(bench::Arguments),
    /// Bring up a real throw-away cluster, use it, break it, take it down
    #[command(disable_help_flag = true)]
    Cluster(cluster::Arguments),
    /// Show what this is: a real cluster, the chart, a schedule, a policy, and what became of it
    Demo(demo::Arguments),
    /// Write the files that are made from code
    Generate,
    /// Build the book in docs/book as web pages, and say where they are
    Book,
    /// Write `config/deploy` as the chart renders it; needs Go
    Manifests,
    /// Build the container image, and say where it is
    Image(image::Arguments),
    /// Make all files of a release, and say where they are
    Release(release::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Test(arguments) => test::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Generate => generate::run(),
        Command::Book => book::run(),
        Command::Manifests => manifests::run(),
        Command::Release(arguments) => release::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
