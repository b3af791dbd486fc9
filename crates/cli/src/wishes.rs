//! Values that somebody asked for, each with where it was asked.

use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::args::{FinetuneArgs, TrainArgs, TrainingFlags};
use crate::exit::usage;

/// One value that somebody asked for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) source: String,
}

/// What `taper train` was asked for, the strongest last.
pub(crate) fn of_train(args: &TrainArgs) -> Result<Vec<Wish>> {
    let own = [("data.location", "--data", text(&args.data)), ("model.name", "--model", text(&args.model))];
    of_training(&args.flags, own)
}

/// What `taper finetune` was asked for, the strongest last.
pub(crate) fn of_finetune(args: &FinetuneArgs) -> Result<Vec<Wish>> {
    let own = [
        ("data.location", "DATA", text(&args.data)),
        ("train.base_weights", "--weights", text(&args.weights)),
        ("train.freeze", "--freeze", text(&args.freeze)),
    ];
    of_training(&args.flags, own)
}

fn of_training<const N: usize>(flags: &TrainingFlags, own: [Flag; N]) -> Result<Vec<Wish>> {
    let mut wishes = match &flags.config {
        Some(path) => of_file(path)?,
        None => Vec::new(),
    };
    wishes.extend(of_set(&flags.set)?);
    wishes.extend(own.into_iter().filter_map(wish));
    wishes.extend(shared(flags)?.into_iter().filter_map(wish));
    Ok(wishes)
}

/// Key, how the flag is written, and its value where it was given.
type Flag = (&'static str, &'static str, Option<Value>);

fn shared(flags: &TrainingFlags) -> Result<[Flag; 10]> {
    let count = |value: Option<u64>| {
        let value = value.map(i64::try_from).transpose().context("a number on the command line is too large")?;
        anyhow::Ok(value.map(Value::Integer))
    };
    Ok([
        ("train.epochs", "--epochs", count(flags.epochs)?),
        ("train.batch_size", "--batch-size", count(flags.batch_size)?),
        ("optim.name", "--opt", text(&flags.opt)),
        ("optim.lr", "--lr", flags.lr.map(Value::Float)),
        ("schedule.name", "--sched", text(&flags.sched)),
        ("train.seed", "--seed", count(flags.seed)?),
        ("data.workers", "--workers", count(flags.workers)?),
        ("train.device", "--device", text(&flags.device)),
        ("train.dtype", "--dtype", text(&flags.dtype)),
        ("train.on_nonfinite", "--on-nonfinite", text(&flags.on_nonfinite)),
    ])
}

fn text(value: &Option<String>) -> Option<Value> {
    value.clone().map(Value::String)
}

fn wish((key, flag, value): Flag) -> Option<Wish> {
    Some(Wish { key: key.to_owned(), value: value?, source: flag.to_owned() })
}

fn of_file(path: &Path) -> Result<Vec<Wish>> {
    let text =
        std::fs::read_to_string(path).map_err(|error| usage(format!("cannot read {}: {error}", path.display())))?;
    let table: Table = text.parse().map_err(|error| usage(format!("{} is not TOML: {error}", path.display())))?;
    let source = path.display().to_string();
    let mut wishes = Vec::new();
    for (section, keys) in &table {
        let Value::Table(keys) = keys else {
            return Err(usage(format!("{source}: {section} stands outside of a section; see --print-config")));
        };
        for (key, value) in keys {
            wishes.push(Wish { key: format!("{section}.{key}"), value: value.clone(), source: source.clone() });
        }
    }
    Ok(wishes)
}

/// What `--set` asks for.
pub(crate) fn of_set(set: &[String]) -> Result<Vec<Wish>> {
    set.iter().map(|text| of_one_set(text)).collect()
}

fn of_one_set(text: &str) -> Result<Wish> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| key.contains('.'))
        .ok_or_else(|| usage(format!("--set {text}: expected section.key=value, as in --set optim.lr=0.1")))?;
    // What is no TOML value is a word: `--set optim.name=adamw` needs no quotes.
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.trim().to_owned()));
    Ok(Wish { key: key.trim().to_owned(), value, source: format!("--set {text}") })
}
