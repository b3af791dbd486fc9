//! `cargo xtask ablation`: trains every step of the report's study and writes what came of it.
//!
//! A study is a folder with a run directory for each step and seed. Whatever ends the process, the same command goes on
//! where it stopped: runs that are complete stay, one that was interrupted goes on from its last epoch.

mod outcome;
mod steps;
mod table;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::pipeline::{Deadline, Ended, Program, Run, Taper, from_here, keep_settings, write_whole};
use outcome::Outcome;
pub(crate) use steps::{Epochs, StepRange};
use steps::{STEPS, Step};

/// What is trained, on what, for how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Settings {
    /// CIFAR-100 as a folder or archive, or any data of 32×32 pixels
    #[arg(long, value_name = "DATA", default_value = "cifar-100-binary")]
    pub(crate) data: PathBuf,
    /// Epochs of every step, or `report`: 100 of step 10 and 10 of the others, which the report does not give
    #[arg(long, value_name = "N|report", default_value = "report")]
    pub(crate) epochs: Epochs,
    /// Steps to train, as 0-10 or 4
    #[arg(long, value_name = "FIRST-LAST", default_value = "0-10")]
    pub(crate) steps: StepRange,
    /// Seeds of each step: 0 and up
    #[arg(long, default_value = "1")]
    pub(crate) seeds: NonZeroU64,
    /// Ends after so many minutes; the same command goes on later
    #[arg(long, value_name = "MINUTES")]
    pub(crate) budget: Option<f64>,
    /// Trains on so many images, the same ones in every run; all when left out
    #[arg(long, value_name = "N")]
    pub(crate) train_images: Option<NonZeroU64>,
    /// Multiplies the channels of the steps from 2 on
    #[arg(long, default_value = "1.0")]
    pub(crate) width: f64,
    /// Folder of the study
    #[arg(long, value_name = "DIR", default_value = "runs/ablation")]
    pub(crate) output: PathBuf,
    /// A few steps on built-in data, to see that everything works; figures mean nothing
    #[arg(long, conflicts_with_all = ["data", "epochs", "train_images", "width"])]
    pub(crate) smoke: bool,
    #[command(flatten)]
    pub(crate) program: Program,
}

/// Trains what is not trained yet and writes the tables.
///
/// # Errors
/// A folder with other settings, or a run that fails.
pub(crate) fn run(root: &Path, settings: &Settings) -> Result<ExitCode> {
    let study = Study::open(root, settings)?;
    let deadline = Deadline::after(settings.budget);
    let mut num_left = 0;
    for seed in 0..settings.seeds.get() {
        for step in STEPS.iter().filter(|step| settings.steps.contains(step.number)) {
            num_left += usize::from(study.train(step, seed, deadline)? == Ended::OutOfTime);
        }
    }
    let outcomes = study.outcomes()?;
    study.write(&outcomes)?;
    println!("{}", table::markdown(&study.shared, &outcomes));
    println!("written to {}", study.folder.display());
    if num_left > 0 {
        println!("{num_left} runs are not complete: the time was up; the same command goes on");
    }
    Ok(ExitCode::SUCCESS)
}

/// A folder of runs with the same settings.
struct Study {
    folder: PathBuf,
    taper: Taper,
    shared: Shared,
}

/// What all runs of a study have in common.
#[derive(Clone, Debug, PartialEq)]
struct Shared {
    data: String,
    epochs: Epochs,
    train_images: Option<u64>,
    width: f64,
    smoke: bool,
}

impl Shared {
    fn of(settings: &Settings) -> Result<Self> {
        Ok(if settings.smoke {
            Self { data: "glyphs".into(), epochs: Epochs::All(2), train_images: Some(256), width: 0.25, smoke: true }
        } else {
            Self {
                data: from_here(&settings.data)?.display().to_string(),
                epochs: settings.epochs,
                train_images: settings.train_images.map(NonZeroU64::get),
                width: settings.width,
                smoke: false,
            }
        })
    }

    /// What must be the same when a study is gone on with. Where the data lie may change; the runs know their hash.
    fn to_json(&self) -> Value {
        json!({
            "epochs": self.epochs.to_string(),
            "train_images": self.train_images,
            "width": self.width,
            "smoke": self.smoke,
        })
    }
}

impl Study {
    fn open(root: &Path, settings: &Settings) -> Result<Self> {
        let (folder, shared) = (from_here(&settings.output)?, Shared::of(settings)?);
        keep_settings(&folder, &shared.to_json())?;
        Ok(Self { folder, taper: Taper::prepare(root, &settings.program)?, shared })
    }

    fn run_of(&self, step: &Step, seed: u64) -> Run {
        Run::new(&self.folder, &format!("step-{:02}-seed-{seed}", step.number))
    }

    fn train(&self, step: &Step, seed: u64, deadline: Deadline) -> Result<Ended> {
        let run = self.run_of(step, seed);
        let was_complete = run.is_complete();
        let ended = run.carry_out(&self.taper, &self.arguments(step, seed), deadline)?;
        match ended {
            Ended::Complete if was_complete => {}
            Ended::Complete => println!("step {} seed {seed}: {}", step.number, Outcome::of_run(seed, &run)?),
            Ended::Diverged => println!("step {} seed {seed}: diverged", step.number),
            Ended::OutOfTime => {}
        }
        Ok(ended)
    }

    /// The call that trains one step.
    fn arguments(&self, step: &Step, seed: u64) -> Vec<String> {
        let shared = &self.shared;
        let mut arguments: Vec<String> = ["train", "-c", "data/recipes/ablation.toml", "--data"].map(Into::into).into();
        arguments.extend([shared.data.clone(), "--model".into(), step.model()]);
        arguments.extend(["--epochs".into(), shared.epochs.of(step).to_string(), "--seed".into(), seed.to_string()]);
        let mut set = |text: String| arguments.extend(["--set".to_owned(), text]);
        for difference in step.differences() {
            set((*difference).to_owned());
        }
        if let Some(count) = shared.train_images {
            set(format!("data.train_images={count}"));
        }
        for text in self.model_settings(step) {
            set(text);
        }
        arguments
    }

    /// What is set of the network itself.
    fn model_settings(&self, step: &Step) -> Vec<String> {
        let mut set = Vec::new();
        if step.number >= 2 {
            set.push(format!("model.width={}", self.shared.width));
        }
        if self.shared.smoke && step.number == 10 {
            set.push("model.depths=[1,0,0,0]".to_owned());
        }
        set
    }

    /// What the binary says of a step's network: its change, its parameters and its operations.
    fn describe(&self, step: &Step) -> Result<outcome::Network> {
        let mut arguments = vec!["inspect".to_owned(), "model".into(), step.model()];
        for text in self.model_settings(step) {
            arguments.extend(["--set".to_owned(), text]);
        }
        outcome::Network::parse(&self.taper.said(&arguments)?)
    }

    /// Every step that has a run, whatever command trained it.
    fn outcomes(&self) -> Result<Vec<outcome::OfStep>> {
        let mut outcomes = Vec::new();
        for step in &STEPS {
            let mut of_step =
                outcome::OfStep { step, network: self.describe(step)?, runs: Vec::new(), num_diverged: 0 };
            for seed in 0.. {
                let run = self.run_of(step, seed);
                if run.is_complete() {
                    of_step.runs.push(Outcome::of_run(seed, &run)?);
                } else if run.folder.with_extension("diverged").is_file() {
                    of_step.num_diverged += 1;
                } else if !run.folder.exists() {
                    break;
                }
            }
            if !of_step.runs.is_empty() || of_step.num_diverged > 0 {
                outcomes.push(of_step);
            }
        }
        Ok(outcomes)
    }

    fn write(&self, outcomes: &[outcome::OfStep]) -> Result<()> {
        let json = serde_json::to_string_pretty(&outcome::to_json(&self.shared.to_json(), outcomes))? + "\n";
        write_whole(&self.folder.join("ablation.json"), &json)?;
        write_whole(&self.folder.join("ablation.md"), &table::markdown(&self.shared, outcomes))?;
        write_whole(&self.folder.join("curves.csv"), &outcome::curves(outcomes))?;
        self.draw(outcomes)
    }

    /// The curves of all steps with the first seed, as a page.
    fn draw(&self, outcomes: &[outcome::OfStep]) -> Result<()> {
        let runs = outcomes.iter().map(|of| self.run_of(of.step, 0)).filter(Run::is_complete);
        let runs: Vec<String> = runs.map(|run| run.folder.display().to_string()).collect();
        if runs.is_empty() {
            return Ok(());
        }
        let output = self.folder.join("report.html").display().to_string();
        let words = ["report".to_owned(), "-q".to_owned(), "--output".to_owned(), output];
        self.taper.said(&[&words[..], &runs].concat()).map(|_| ())
    }
}
