//! The `taper` command.
//!
//! **Owns** arguments, configuration files, the run directory's layout, exit codes and what is printed.
//! **Does not know** tensors: it calls the crates in order and hands numbers and files from one to the next.
//!
//! Read [`args`] first, then [`resolve`](mod@resolve) (arguments and files → configuration), then the commands.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this crate's work")]

mod args;
mod base_weights;
mod commands;
mod config;
mod device;
mod exit;
mod image_files;
mod images;
mod interrupt;
mod job;
mod lock;
mod measure;
mod memory;
mod model_card;
mod nearest;
mod prepare;
mod recipe;
mod resident;
mod resolve;
mod resume;
mod run_dir;
mod run_page;
mod same_data;
mod terminal;
mod trained;
mod wishes;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::exit::Ended;
use crate::terminal::Talk;

fn main() -> ExitCode {
    let cli = Cli::parse();
    taper_kernels::prepare_allocator();
    terminal::start_log(cli.verbose, cli.quiet);
    exit::quieten_panics();
    let done = std::panic::catch_unwind(|| run(&cli)).unwrap_or_else(|panic| Err(exit::of_panic(panic.as_ref())));
    exit::code_of(done)
}

fn run(cli: &Cli) -> anyhow::Result<Ended> {
    match &cli.command {
        Command::Train(args) => commands::train::run(args, cli),
        Command::Finetune(args) => commands::finetune::run(args, cli),
        Command::Reproduce(args) => commands::reproduce::run(args, cli),
        Command::Evaluate(args) => commands::evaluate::run(args),
        Command::Predict(args) => commands::predict::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Fetch(args) => commands::fetch::run(args, Talk::new(cli.quiet)),
        Command::Report(args) => commands::report::run(args, cli),
        Command::LrFind(args) => commands::lr_find::run(args, cli),
        Command::Completions(args) => commands::help::completions(args),
        Command::Man(args) => commands::help::man(args),
    }
}
