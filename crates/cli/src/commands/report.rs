//! `taper report`

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use taper_report::{RunPage, write_epochs_csv, write_page};
use taper_train::write_atomically;

use crate::args::{Cli, ReportArgs};
use crate::exit::Ended;
use crate::run_page;
use crate::terminal::Talk;

/// Runs the command.
pub(crate) fn run(args: &ReportArgs, cli: &Cli) -> Result<Ended> {
    let talk = Talk::new(cli.quiet);
    let mut pages: Vec<RunPage> =
        args.runs.iter().map(|run| run_page::of_run(run, &args.images)).collect::<Result<_>>()?;
    shorten_names(&mut pages);
    for page in &pages {
        for note in &page.notes {
            talk.say(format!("{}: {note}", page.name));
        }
    }
    let output = output_of(args);
    write_atomically(&output, write_page(&pages)?.as_bytes())?;
    println!("{}", output.display());
    if let Some(path) = &args.csv {
        let mut csv = Vec::new();
        write_epochs_csv(&mut csv, pages.iter().map(|page| (page.name.as_str(), page.epochs.as_slice())))?;
        write_atomically(path, &csv)?;
        println!("{}", path.display());
    }
    Ok(Ended::Done)
}

/// Runs are called by their folders, where those tell them apart.
fn shorten_names(pages: &mut [RunPage]) {
    let short = |name: &String| Path::new(name).file_name().map(|name| name.to_string_lossy().into_owned());
    let names: Option<Vec<String>> = pages.iter().map(|page| short(&page.name)).collect();
    let Some(names) = names else { return };
    if names.iter().collect::<HashSet<_>>().len() == pages.len() {
        pages.iter_mut().zip(names).for_each(|(page, name)| page.name = name);
    }
}

/// In the run's own directory, or here where there are several.
fn output_of(args: &ReportArgs) -> PathBuf {
    match (&args.output, args.runs.as_slice()) {
        (Some(path), _) => path.clone(),
        (None, [run]) => run.join("report.html"),
        (None, _) => Path::new("report.html").to_owned(),
    }
}
