//! `cargo xtask repro`: both pipelines, and one page that says what was run, on what, and what came of it.

use std::fmt::Write as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::bench::hardware;
use crate::pipeline::{Program, from_here, write_whole};
use crate::{ablation, transfer};

/// What is run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Settings {
    /// CIFAR-100 for the ablation study
    #[arg(long, value_name = "DATA", default_value = "cifar-100-binary")]
    data: PathBuf,
    /// CUB-200, or photos in a folder for each class, for transfer learning
    #[arg(long, value_name = "DATA", default_value = "CUB_200_2011")]
    photos: PathBuf,
    /// Weights of ImageNet: a name, a file, or a run
    #[arg(long, value_name = "NAME|FILE|RUN", default_value = "resnet18")]
    weights: String,
    /// Epochs of every step of the ablation study, or `report`
    #[arg(long, value_name = "N|report", default_value = "report")]
    epochs: ablation::Epochs,
    /// Seeds of each step
    #[arg(long, default_value = "1")]
    seeds: NonZeroU64,
    /// Minutes for each of the two pipelines; the same command goes on later
    #[arg(long, value_name = "MINUTES")]
    budget: Option<f64>,
    /// Folder of the runs and of REPRODUCTION.md
    #[arg(long, value_name = "DIR", default_value = "runs/reproduction")]
    output: PathBuf,
    /// A few steps on built-in data, to see that everything works; figures mean nothing
    #[arg(long, conflicts_with_all = ["data", "photos", "weights", "epochs"])]
    smoke: bool,
    #[command(flatten)]
    program: Program,
}

/// Runs both and writes the page.
///
/// # Errors
/// Those of the pipelines.
pub(crate) fn run(root: &Path, settings: &Settings) -> Result<ExitCode> {
    let folder = from_here(&settings.output)?;
    let (study, transferred) = (folder.join("ablation"), folder.join("transfer"));
    ablation::run(root, &settings.ablation(&study)?)?;
    transfer::run(root, &settings.transfer(&transferred))?;
    let read =
        |path: PathBuf| std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
    let tables = [read(study.join("ablation.md"))?, read(transferred.join("transfer.md"))?];
    let page = page(root, std::env::args().skip(1), &tables);
    let path = folder.join("REPRODUCTION.md");
    write_whole(&path, &page)?;
    println!("written to {}", path.display());
    Ok(ExitCode::SUCCESS)
}

impl Settings {
    fn ablation(&self, output: &Path) -> Result<ablation::Settings> {
        Ok(ablation::Settings {
            data: self.data.clone(),
            epochs: self.epochs,
            steps: "0-10".parse().map_err(anyhow::Error::msg)?,
            seeds: self.seeds,
            budget: self.budget,
            train_images: None,
            width: 1.0,
            output: output.to_owned(),
            smoke: self.smoke,
            program: self.program.clone(),
        })
    }

    fn transfer(&self, output: &Path) -> transfer::Settings {
        transfer::Settings {
            data: self.photos.clone(),
            weights: self.weights.clone(),
            epochs: None,
            budget: self.budget,
            output: output.to_owned(),
            smoke: self.smoke,
            program: self.program.clone(),
        }
    }
}

fn page(root: &Path, arguments: impl Iterator<Item = String>, tables: &[String]) -> String {
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let machine = hardware::describe();
    let word = |key: &str| machine[key].as_str().map_or_else(|| machine[key].to_string(), str::to_owned);
    let mut page = "# Reproduction\n\n".to_owned();
    let _ = writeln!(
        page,
        "- command: `cargo xtask {}`\n- date: {}\n- commit: {}\n- compiler: {}\n- hardware: {}, {} cores, {} of memory, {}\n\n\
         The hashes of the data stand with each table.\n",
        arguments.collect::<Vec<_>>().join(" "),
        or_unknown(hardware::date(root)),
        or_unknown(hardware::commit(root)),
        or_unknown(hardware::rustc(root)),
        word("cpu"),
        word("cores"),
        word("memory"),
        word("extensions"),
    );
    for table in tables {
        // Their headings are one level down here.
        let lines = table.lines().map(|line| if line.starts_with('#') { format!("#{line}") } else { line.to_owned() });
        page += &(lines.collect::<Vec<_>>().join("\n") + "\n\n");
    }
    page.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn the_page_holds_command_machine_and_tables() {
        let tables = ["# One\n\n| a |\n".to_owned(), "# Two\n## Three\n".to_owned()];
        let page = page(std::path::Path::new("."), ["repro".to_owned(), "--smoke".to_owned()].into_iter(), &tables);
        for part in ["`cargo xtask repro --smoke`", "- hardware: ", "\n## One\n", "| a |", "\n### Three\n"] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
