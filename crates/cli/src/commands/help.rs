//! `taper completions` and `taper man`: what the command line says of itself.

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::Ended;

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Ended> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "taper", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(Ended::Done)
}

/// Writes a page for the command and one for each of its commands.
pub(crate) fn man(args: &ManArgs) -> Result<Ended> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("cannot write man pages into {}", folder.display()))?;
    println!("{}", folder.display());
    Ok(Ended::Done)
}
