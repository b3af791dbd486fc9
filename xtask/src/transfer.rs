//! `cargo xtask transfer`: Part 2 of the report, a ResNet trained further on photos, as a table beside the report's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::pipeline::{Deadline, Ended, Epoch, Program, Provenance, Run, Taper, from_here, keep_settings, write_whole};

/// What is trained, on what, for how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Settings {
    /// CUB-200, or photos in a folder for each class
    #[arg(long, value_name = "DATA", default_value = "CUB_200_2011")]
    pub(crate) data: PathBuf,
    /// Weights of ImageNet: a name, a file, or a run
    #[arg(long, value_name = "NAME|FILE|RUN", default_value = "resnet18")]
    pub(crate) weights: String,
    /// Epochs, in place of the report's 30 and, of its untouched code, 10
    #[arg(long)]
    pub(crate) epochs: Option<u64>,
    /// Ends after so many minutes; the same command goes on later
    #[arg(long, value_name = "MINUTES")]
    pub(crate) budget: Option<f64>,
    /// Folder of the runs
    #[arg(long, value_name = "DIR", default_value = "runs/transfer")]
    pub(crate) output: PathBuf,
    /// A few steps on built-in data, to see that everything works; figures mean nothing
    #[arg(long, conflicts_with_all = ["data", "weights", "epochs"])]
    pub(crate) smoke: bool,
    #[command(flatten)]
    pub(crate) program: Program,
}

/// A row of the report's table. Losses are in nats: the report divides them by its batch size of 32 once more.
struct Row {
    name: &'static str,
    what: &'static str,
    freeze: &'static str,
    epochs: u64,
    train_top1: f64,
    train_loss: Option<f64>,
    test_top1: Option<f64>,
    test_loss: Option<f64>,
}

const ROWS: [Row; 3] = [
    Row {
        name: "head",
        what: "FC only",
        freeze: "backbone",
        epochs: 30,
        train_top1: 0.6867,
        train_loss: Some(32.0 * 0.0824),
        test_top1: Some(0.3604),
        test_loss: Some(32.0 * 0.1022),
    },
    Row {
        name: "whole",
        what: "whole network",
        freeze: "none",
        epochs: 30,
        train_top1: 0.9457,
        train_loss: Some(32.0 * 0.0263),
        test_top1: Some(0.5631),
        test_loss: Some(32.0 * 0.0603),
    },
    // Of the untouched code the report says that it had 10 epochs and another learning rate, which it does not give.
    Row {
        name: "untouched",
        what: "FC only, 10 epochs",
        freeze: "backbone",
        epochs: 10,
        train_top1: 0.155,
        train_loss: None,
        test_top1: None,
        test_loss: None,
    },
];

/// What came of a row.
struct Outcome {
    row: &'static Row,
    last: Epoch,
    num_epochs: usize,
    part: &'static str,
    top1: f64,
    loss: f64,
    provenance: Provenance,
    kind: String,
}

/// Trains what is not trained yet, evaluates it and writes the table.
///
/// # Errors
/// A run or an evaluation that fails.
pub(crate) fn run(root: &Path, settings: &Settings) -> Result<ExitCode> {
    let folder = from_here(&settings.output)?;
    keep_settings(
        &folder,
        &json!({ "epochs": settings.epochs, "weights": settings.weights, "smoke": settings.smoke }),
    )?;
    let taper = Taper::prepare(root, &settings.program)?;
    let deadline = Deadline::after(settings.budget);
    let base = if settings.smoke { Some(smoke_base(&taper, &folder)?) } else { None };
    let (mut outcomes, mut num_left) = (Vec::new(), 0);
    for row in &ROWS {
        let run = Run::new(&folder, row.name);
        match run.carry_out(&taper, &arguments(settings, row, base.as_deref())?, deadline)? {
            Ended::Complete => {
                let outcome = outcome(&taper, row, &run)?;
                println!("{}: {} top-1 {:.2} %", row.what, outcome.part, 100.0 * outcome.top1);
                outcomes.push(outcome);
            }
            Ended::Diverged => println!("{}: diverged", row.what),
            Ended::OutOfTime => num_left += 1,
        }
    }
    let page = markdown(settings, &outcomes);
    write_whole(&folder.join("transfer.md"), &page)?;
    let figures = json!({ "rows": outcomes.iter().map(to_json).collect::<Vec<_>>() });
    write_whole(&folder.join("transfer.json"), &(serde_json::to_string_pretty(&figures)? + "\n"))?;
    println!("{page}\nwritten to {}", folder.display());
    if num_left > 0 {
        println!("{num_left} runs are not complete: the time was up; the same command goes on");
    }
    Ok(ExitCode::SUCCESS)
}

/// In place of weights from ImageNet: a small ResNet after a few steps on built-in images.
fn smoke_base(taper: &Taper, folder: &Path) -> Result<String> {
    let run = Run::new(folder, "base");
    let arguments = ["train", "--model", "resnet18", "--set", "model.input_size=32", "--set", "train.max_steps=2"];
    let few = ["--set", "data.train_images=128", "--set", "augment.crop_padding=0"];
    let arguments: Vec<String> = arguments.iter().chain(&few).map(|word| (*word).to_owned()).collect();
    run.carry_out(taper, &arguments, Deadline::after(None))?;
    Ok(run.folder.display().to_string())
}

fn arguments(settings: &Settings, row: &Row, base: Option<&str>) -> Result<Vec<String>> {
    let (data, weights) = match base {
        Some(base) => ("glyphs".to_owned(), base.to_owned()),
        None => (from_here(&settings.data)?.display().to_string(), weights_of(&settings.weights)?),
    };
    let epochs = if settings.smoke { 1 } else { settings.epochs.unwrap_or(row.epochs) };
    let mut arguments: Vec<String> =
        ["finetune", &data, "--weights", &weights, "--recipe", "report"].map(Into::into).into();
    arguments.extend(["--freeze", row.freeze, "--epochs", &epochs.to_string()].map(Into::into));
    if settings.smoke {
        arguments.extend(["--set", "data.train_images=128"].map(Into::into));
    }
    Ok(arguments)
}

/// A file or a run keeps its meaning in another working folder; anything else is a name.
fn weights_of(weights: &str) -> Result<String> {
    match Path::new(weights).exists() {
        true => Ok(from_here(Path::new(weights))?.display().to_string()),
        false => Ok(weights.to_owned()),
    }
}

fn outcome(taper: &Taper, row: &'static Row, run: &Run) -> Result<Outcome> {
    let read = |file: &str| -> Result<Value> {
        let path = run.folder.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))
    };
    let has_test = read("split.json")?["test"].as_array().is_some_and(|test| !test.is_empty());
    let part = if has_test { "test" } else { "val" };
    let call = ["evaluate", &run.folder.display().to_string(), "--split", part, "--json"].map(str::to_owned);
    let evaluated: Value = serde_json::from_str(&taper.said(&call)?).context("what taper evaluate printed")?;
    let number = |key: &str| evaluated[key].as_f64().with_context(|| format!("taper evaluate does not say {key}"));
    let epochs = Epoch::of_run(&run.folder)?;
    Ok(Outcome {
        row,
        last: *epochs.last().with_context(|| format!("{} has no epoch", run.folder.display()))?,
        num_epochs: epochs.len(),
        part,
        top1: number("top1")?,
        loss: number("loss")?,
        provenance: Provenance::of_run(&run.folder)?,
        kind: read("provenance.json")?["data"]["kind"].as_str().unwrap_or("unknown").to_owned(),
    })
}

/// Everything but times.
fn to_json(outcome: &Outcome) -> Value {
    json!({
        "row": outcome.row.name,
        "epochs": outcome.num_epochs,
        "train_top1": outcome.last.train_top1,
        "train_loss": outcome.last.train_loss,
        "evaluated": outcome.part,
        "top1": outcome.top1,
        "loss": outcome.loss,
        "data": outcome.provenance.data,
    })
}

fn markdown(settings: &Settings, outcomes: &[Outcome]) -> String {
    let mut page = "# Transfer learning\n\n".to_owned();
    if settings.smoke {
        page += "A trial of the pipeline on a few built-in images: the figures mean nothing.\n\n";
    }
    let Some(first) = outcomes.first() else { return page + "No run is complete yet.\n" };
    let data = match first.kind.starts_with("cub-200") {
        true => "the report's data set".to_owned(),
        false => {
            format!("**not CUB-200** but a set of the kind {}: the report's figures are of other images", first.kind)
        }
    };
    let Provenance { data: digest, device, commit } = &first.provenance;
    let _ = writeln!(
        page,
        "Recipe: `data/recipes/finetune-report.toml`, one seed. Losses in nats. Training figures are those of the last epoch, \
         in training mode; the others are on {}.\n\n- data: {digest}; {data}\n- computed on: {device}\n- commit: {commit}\n",
        first.part
    );
    let part = first.part;
    page += &format!(
        "| what trains | epochs | train top-1 | report | train loss | report | {part} top-1 | report | {part} loss | report |\n"
    );
    page += "|---|---|---|---|---|---|---|---|---|---|\n";
    outcomes.iter().for_each(|outcome| page += &table_row(outcome));
    page
}

fn table_row(outcome: &Outcome) -> String {
    let Outcome { row, last, num_epochs, top1, loss, .. } = outcome;
    let percent = |value: f64| format!("{:.2} %", 100.0 * value);
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    format!(
        "| {} | {num_epochs} | {} | {} | {:.4} | {} | {} | {} | {loss:.4} | {} |\n",
        row.what,
        percent(last.train_top1),
        percent(row.train_top1),
        last.train_loss,
        or_dash(row.train_loss.map(|loss| format!("{loss:.4}"))),
        percent(*top1),
        or_dash(row.test_top1.map(percent)),
        or_dash(row.test_loss.map(|loss| format!("{loss:.4}"))),
    )
}

#[cfg(test)]
mod tests {
    use super::{Epoch, Outcome, Provenance, ROWS, Settings, markdown};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn the_table_says_whose_data_it_is_of() {
        let settings = Line::try_parse_from(["transfer"]).unwrap().settings;
        let of = |kind: &str| Outcome {
            row: &ROWS[1],
            last: Epoch {
                epoch: 29,
                train_loss: 0.5,
                train_top1: 0.75,
                val_loss: 1.0,
                val_top1: 0.5,
                images_per_second: 1.0,
            },
            num_epochs: 30,
            part: "test",
            top1: 0.5,
            loss: 2.0,
            provenance: Provenance { commit: "c".into(), device: "d".into(), data: "x, sha256 y".into() },
            kind: kind.into(),
        };
        let page = markdown(&settings, &[of("image-folder")]);
        assert!(page.contains("**not CUB-200**"), "{page}");
        let row = "| whole network | 30 | 75.00 % | 94.57 % | 0.5000 | 0.8416 | 50.00 % | 56.31 % | 2.0000 | 1.9296 |";
        assert!(page.contains(row), "{page}");
        assert!(markdown(&settings, &[of("cub-200-2011")]).contains("the report's data set"));
        assert!(markdown(&settings, &[]).contains("No run is complete"));
    }
}
