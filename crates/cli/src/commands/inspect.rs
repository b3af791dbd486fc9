//! `taper inspect`: reads, prints, changes nothing.

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use candle_nn::VarMap;
use taper_hub::weights::{Origin, WeightsFile};
use taper_models::{ABLATION, ModelConfig, seeded};
use taper_optim::{Role, role};
use taper_report::{LossScale, epoch_line, read_epochs, read_steps};
use taper_train::{Checkpoint, sha256_of_file};

use crate::args::{Inspect, InspectArgs};
use crate::config::RunConfig;
use crate::exit::{Ended, bad_input};
use crate::resolve::resolve_model;
use crate::run_dir::{self, Found};
use crate::terminal::human_seconds;
use crate::trained::{ClassNames, Described, Trained, weights_file};

mod data;

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Result<Ended> {
    match &args.what {
        Inspect::Data { location } => data::run(location)?,
        Inspect::Model { model: name, set, classes } => model(name, set, *classes)?,
        Inspect::Weights { file } => weights(file)?,
        Inspect::Run { run } => inspect_run(run)?,
    }
    Ok(Ended::Done)
}

fn model(name: &str, set: &[String], num_classes: u64) -> Result<()> {
    if Path::new(name).exists() {
        let trained = Trained::load(Path::new(name), &Device::Cpu)?;
        return print_model(&trained.card.architecture, trained.card.classes.len(), &trained.vars);
    }
    let (config, num_classes) = (resolve_model(name, set)?, usize::try_from(num_classes)?);
    if let Some(step) = ModelConfig::ABLATION_NAMES.iter().position(|known| *known == name) {
        println!("step {step:<8} {}", ABLATION[step].change);
    }
    let vars = VarMap::new();
    config.build(num_classes, seeded(&vars, 0, &Device::Cpu))?;
    print_model(&config, num_classes, &vars)
}

fn print_model(config: &ModelConfig, num_classes: usize, vars: &VarMap) -> Result<()> {
    let cost = config.cost(num_classes);
    println!("{}", serde_json::to_string(config)?);
    println!("classes       {num_classes}");
    println!("parameters    {}", cost.num_parameters);
    println!("forward       {:.3} GMAC an image", cost.forward_macs as f64 / 1e9);
    println!("training      {:.3} GFLOP an image", 6.0 * cost.forward_macs as f64 / 1e9);
    let mut rows: Vec<(String, Vec<usize>)> = {
        let vars = vars.data().lock().map_err(|_| anyhow::anyhow!("another thread panicked"))?;
        vars.iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect()
    };
    rows.retain(|(name, dims)| role(name, dims.len()) != Role::Buffer);
    rows.sort();
    for (name, dims) in rows {
        println!("  {name:<34} {dims:?}");
    }
    Ok(())
}

fn weights(path: &Path) -> Result<()> {
    let path = weights_file(path)?;
    let file = WeightsFile::read(&path)?;
    let num_values: usize = file.tensors.values().map(|tensor| tensor.elem_count()).sum();
    let types: Vec<String> = file.stored_types.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    let rows: Vec<(String, Vec<usize>)> =
        file.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
    println!("{}: {} tensors, {num_values} values", path.display(), rows.len());
    println!("form          {}", file.form);
    println!("stored as     {}", types.join(", "));
    println!("sha256        {}", sha256_of_file(&path)?);
    for (key, value) in file.metadata.iter().filter(|(key, _)| *key != "taper") {
        println!("metadata      {key} = {}", value.escape_debug());
    }
    match Described::of(file, &path) {
        Ok(described) => print_described(&described)?,
        Err(error) => println!("architecture  unknown: {error:#}"),
    }
    for (name, dims) in rows {
        println!("  {name:<34} {dims:?}");
    }
    Ok(())
}

fn print_described(described: &Described) -> Result<()> {
    let card = &described.card;
    println!("names         {}", described.naming.as_str());
    println!("architecture  {}", serde_json::to_string(&card.architecture)?);
    println!("parameters    {}", card.architecture.cost(card.classes.len()).num_parameters);
    let names = match described.class_names {
        ClassNames::Known => "named",
        ClassNames::Numbers => "without names",
    };
    println!("classes       {}, {names}", card.classes.len());
    let origin = match described.preprocessing_from {
        Origin::Configuration => "",
        Origin::ImageNetDefault => " (ImageNet's default: nothing says otherwise)",
    };
    println!("preprocessing {}{origin}", serde_json::to_string(&card.preprocessing)?);
    println!("licence       {}", card.licence.as_deref().unwrap_or("not stated"));
    if let Some(sha256) = &card.base_weights_sha256 {
        println!("based on      sha256 {sha256}");
    }
    Ok(())
}

fn inspect_run(path: &Path) -> Result<()> {
    let found = run_dir::look(path)?;
    if matches!(found, Found::Free | Found::Foreign) {
        return Err(bad_input(format!("{}: not a run directory (no provenance.json)", path.display())));
    }
    let config = RunConfig::of_run(path)?;
    println!(
        "{}: {}",
        path.display(),
        if found == Found::Complete { "complete" } else { "interrupted, or still running" }
    );
    println!("data {}   model {}", config.data.location, serde_json::to_string(&config.model)?);
    let records = read_epochs(path)?;
    for record in &records {
        println!("{}", epoch_line(record, config.train.epochs, LossScale::Mean, config.train.batch_size));
    }
    if let Some(last) = records.last() {
        let best = records.iter().map(|record| record.val_top1).fold(0.0, f64::max);
        println!("best val top-1 {best:.4}; {} so far", human_seconds(last.elapsed_seconds));
    }
    if let Some(last) = read_steps(path)?.last() {
        println!(
            "last logged step {} (epoch {}): loss {:.4} top-1 {:.4} lr {:.3e}, {:.0} images/s",
            last.step,
            last.epoch + 1,
            last.loss,
            last.top1,
            last.lr,
            last.images_per_second
        );
    }
    if let Some(checkpoint) = Checkpoint::latest(&path.join("checkpoints"))? {
        println!("newest checkpoint: step {}", checkpoint.progress.step);
    }
    Ok(())
}
