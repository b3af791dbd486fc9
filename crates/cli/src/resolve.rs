//! Flags, `--set`, a file and a recipe → one configuration that knows where each value came from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use taper_data::BUILT_IN;
use taper_models::{Freeze, ModelConfig};
use taper_optim::{AdamWConfig, OptimizerConfig, ScheduleConfig, SgdConfig};
use toml::{Table, Value};

use crate::args::{FinetuneArgs, TrainArgs};
use crate::base_weights::BaseWeights;
use crate::config::RunConfig;
use crate::exit::{bad_input, usage};
use crate::nearest::did_you_mean;
use crate::recipe::{BASENET, GLYPHS, Recipe};
use crate::wishes::{self, Wish};

/// Sections whose `name` decides which other keys there are, with short names for some of their configurations.
const NAMED_SECTIONS: [(&str, &[&str], &[&str]); 3] = [
    ("model", &ModelConfig::NAMES, &ModelConfig::ABLATION_NAMES),
    ("optim", &OptimizerConfig::NAMES, &[]),
    ("schedule", &ScheduleConfig::NAMES, &[]),
];

/// Keys that a recipe may leave out, with a value of their type.
fn optional_keys() -> Vec<(&'static str, Value)> {
    vec![
        ("data.cache_mib", Value::Integer(1)),
        ("data.split_seed", Value::Integer(1)),
        ("data.train_images", Value::Integer(1)),
        ("augment.vertical_flip", Value::Float(0.5)),
        ("augment.random_resized_crop", Value::Table(Table::new())),
        ("augment.color_jitter", Value::Array(Vec::new())),
        ("train.max_steps", Value::Integer(1)),
        ("train.clip_norm", Value::Float(1.0)),
        ("train.ema_decay", Value::Float(0.5)),
        ("train.patience", Value::Integer(1)),
        ("train.on_nonfinite", Value::String(String::new())),
        ("train.base_weights", Value::String(String::new())),
        ("train.memory_limit", Value::String(String::new())),
        ("train.gpu_plans", Value::String(String::new())),
        ("train.recompute", Value::Boolean(false)),
        ("checkpoint.every_steps", Value::Integer(1)),
        ("checkpoint.every_minutes", Value::Float(1.0)),
    ]
}

/// Values in order of precedence, each with its source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layered {
    table: Table,
    sources: BTreeMap<String, String>,
}

/// A configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) config: RunConfig,
    layered: Layered,
}

/// Resolves what `taper train` was called with.
pub(crate) fn resolve(args: &TrainArgs) -> Result<Resolved> {
    let wishes = wishes::of_train(args)?;
    let location = last_text(&wishes, "data.location");
    let recipe = if location.is_none_or(|location| BUILT_IN.contains(&location)) { GLYPHS } else { BASENET };
    let mut layered = Layered::of_recipe(&recipe)?;
    layered.apply(wishes)?;
    layered.finish()
}

/// Resolves what `taper finetune` was called with, for the network of the base weights.
pub(crate) fn resolve_finetune(args: &FinetuneArgs, base: &BaseWeights) -> Result<Resolved> {
    let wishes = wishes::of_finetune(args)?;
    // A policy that cannot be read is named below, with all others' mistakes.
    let freeze = last_text(&wishes, "train.freeze").and_then(|text| text.parse().ok());
    let freeze = freeze.unwrap_or(if base.architecture().trains_backbone() { Freeze::None } else { Freeze::Backbone });
    let mut layered = Layered::of_recipe(args.recipe.when_frozen(&freeze))?;
    layered.put_model(base.architecture())?;
    layered.apply(wishes)?;
    let resolved = layered.finish()?;
    base.require_network(&resolved.config.model)?;
    Ok(resolved)
}

fn last_text<'a>(wishes: &'a [Wish], key: &str) -> Option<&'a str> {
    wishes.iter().rev().find(|wish| wish.key == key).and_then(|wish| wish.value.as_str())
}

/// Resolves the configuration that a run wrote, with the few changes that a resume allows.
pub(crate) fn resolve_run(path: &Path, wishes: Vec<Wish>) -> Result<Resolved> {
    /// Where images come from and how fast, never which weights come out.
    const MAY_CHANGE: [&str; 9] = [
        "data.location",
        "data.workers",
        "data.prefetch",
        "data.cache_mib",
        "train.device",
        "train.memory_limit",
        "train.recompute",
        "checkpoint.",
        "log.",
    ];
    let mut layered = Layered::of_run(path)?;
    let before = layered.table.clone();
    for wish in &wishes {
        let same = lookup(&before, &wish.key).is_some_and(|value| value.to_string() == wish.value.to_string());
        if !same && !MAY_CHANGE.iter().any(|allowed| wish.key.starts_with(allowed)) {
            let reason = "a resumed run keeps its configuration; leave this out, or start a new run";
            return Err(usage(format!("{} (from {}): {reason}", wish.key, wish.source)));
        }
    }
    layered.apply(wishes)?;
    layered.finish()
}

/// Resolves the configuration that a run wrote, for another run.
pub(crate) fn resolve_again(path: &Path, wishes: Vec<Wish>) -> Result<Resolved> {
    let mut layered = Layered::of_run(path)?;
    layered.apply(wishes)?;
    layered.finish()
}

/// The model that a name and `--set model.*` mean.
pub(crate) fn resolve_model(name: &str, set: &[String]) -> Result<ModelConfig> {
    let mut layered = Layered::of_recipe(&BASENET)?;
    let named = Wish { key: "model.name".into(), value: Value::String(name.into()), source: "the command line".into() };
    let mut wishes = vec![named];
    wishes.extend(wishes::of_set(set)?);
    layered.apply(wishes)?;
    Ok(layered.finish()?.config.model)
}

impl Layered {
    fn of_recipe(recipe: &Recipe) -> Result<Self> {
        let table = recipe.text.parse().with_context(|| format!("the built-in recipe {}", recipe.name))?;
        let mut layered = Self { table, sources: BTreeMap::new() };
        layered.name_sources(&format!("recipe {}", recipe.name));
        Ok(layered)
    }

    fn of_run(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            bad_input(format!("cannot read {}: {error}; give the directory of a run", path.display()))
        })?;
        let table = text.parse().map_err(|error| bad_input(format!("{} is not TOML: {error}", path.display())))?;
        let mut layered = Self { table, sources: BTreeMap::new() };
        layered.name_sources("the run's config.toml");
        Ok(layered)
    }

    /// The network of the base weights, whatever the recipe says.
    fn put_model(&mut self, model: &ModelConfig) -> Result<()> {
        let table = Table::try_from(model)?;
        self.sources.retain(|key, _| !key.starts_with("model."));
        self.sources.extend(table.keys().map(|key| (format!("model.{key}"), "the base weights".to_owned())));
        self.table.insert("model".to_owned(), Value::Table(table));
        Ok(())
    }

    fn name_sources(&mut self, source: &str) {
        self.sources = keys_of(&self.table).into_iter().map(|key| (key, source.to_owned())).collect();
    }

    /// Later wishes win. A new `name` replaces its section by that name's defaults, so names come first.
    fn apply(&mut self, mut wishes: Vec<Wish>) -> Result<()> {
        wishes.sort_by_key(|wish| !wish.key.ends_with(".name"));
        for wish in wishes {
            if let Some((section, names, short)) =
                NAMED_SECTIONS.iter().find(|(section, ..)| wish.key == format!("{section}.name"))
            {
                self.choose(section, &[*names, *short].concat(), &wish)?;
            } else {
                self.set(wish)?;
            }
        }
        Ok(())
    }

    fn choose(&mut self, section: &str, names: &[&str], wish: &Wish) -> Result<()> {
        let name = wish.value.as_str().unwrap_or_default();
        if !names.contains(&name) {
            let shown = wish.value.to_string();
            return Err(usage(format!(
                "{section}.name = {shown} (from {}): no such name{}; there are {}",
                wish.source,
                did_you_mean(name, names.iter().copied()),
                names.join(", ")
            )));
        }
        if self.table.get(section).and_then(|table| table.get("name")).and_then(Value::as_str) != Some(name) {
            let defaults = defaults_of(section, name)?;
            self.sources.retain(|key, _| !key.starts_with(&format!("{section}.")));
            self.sources.extend(defaults.keys().map(|key| (format!("{section}.{key}"), format!("default of {name}"))));
            self.table.insert(section.to_owned(), Value::Table(defaults));
        }
        self.sources.insert(format!("{section}.name"), wish.source.clone());
        Ok(())
    }

    fn set(&mut self, wish: Wish) -> Result<()> {
        let known = lookup(&self.table, &wish.key).cloned();
        let optional = optional_keys().into_iter().find(|(key, _)| *key == wish.key).map(|(_, value)| value);
        let Some(like) = known.or(optional) else {
            let keys = keys_of(&self.table);
            let all =
                keys.iter().map(String::as_str).chain(optional_keys().iter().map(|(key, _)| *key)).collect::<Vec<_>>();
            let hint = did_you_mean(&wish.key, all);
            return Err(usage(format!(
                "{} (from {}): no such key{hint}; --print-config lists them all",
                wish.key, wish.source
            )));
        };
        let value = as_type_of(&like, wish.value.clone());
        if value.type_str() != like.type_str() && !is_alternative(&wish.key, &value) {
            let (want, got) = (like.type_str(), value.type_str());
            return Err(usage(format!("{} = {value} (from {}): expected {want}, found {got}", wish.key, wish.source)));
        }
        if let Some((section, key)) = wish.key.split_once('.')
            && let Some(Value::Table(table)) = self.table.get_mut(section)
        {
            table.insert(key.to_owned(), value);
        }
        self.sources.insert(wish.key, wish.source);
        Ok(())
    }

    fn finish(self) -> Result<Resolved> {
        let config: RunConfig =
            self.table.clone().try_into().map_err(|error: toml::de::Error| usage(format!("configuration: {error}")))?;
        config.validate()?;
        Ok(Resolved { config, layered: self })
    }
}

/// Whether a value of another type than the known one may stand there.
fn is_alternative(key: &str, value: &Value) -> bool {
    match key {
        "train.class_weights" => value.is_array() || value.is_str(),
        "train.memory_limit" => value.is_integer() || value.is_str(),
        _ => false,
    }
}

/// A whole number may stand where a fraction is expected.
fn as_type_of(like: &Value, value: Value) -> Value {
    match (like, value) {
        (Value::Float(_), Value::Integer(number)) => Value::Float(number as f64),
        (_, value) => value,
    }
}

fn defaults_of(section: &str, name: &str) -> Result<Table> {
    let missing = || format!("no defaults for {section} {name}");
    let table = match (section, name) {
        ("model", _) => Table::try_from(ModelConfig::by_name(name).with_context(missing)?),
        ("optim", "sgd") => Table::try_from(OptimizerConfig::Sgd(SgdConfig::default())),
        ("optim", "adamw") => Table::try_from(OptimizerConfig::AdamW(AdamWConfig::default())),
        _ => Table::try_from(ScheduleConfig::by_name(name).with_context(missing)?),
    };
    Ok(table?)
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (section, key) = key.split_once('.')?;
    table.get(section)?.get(key)
}

fn keys_of(table: &Table) -> Vec<String> {
    let keys = |(section, keys): (&String, &Value)| -> Vec<String> {
        keys.as_table().map(|keys| keys.keys().map(|key| format!("{section}.{key}")).collect()).unwrap_or_default()
    };
    table.iter().flat_map(keys).collect()
}

impl Resolved {
    /// The configuration as TOML, each line with its source.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::new();
        for (section, keys) in &self.layered.table {
            let separator = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{separator}[{section}]");
            for (key, value) in keys.as_table().into_iter().flatten() {
                let source = self.layered.sources.get(&format!("{section}.{key}")).map_or("", String::as_str);
                let _ = writeln!(text, "{key} = {value} # {}", source.replace(char::is_control, " "));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use taper_models::{BaseNetConfig, ResNetConfig, Stem};

    fn train(args: &[&str]) -> Result<Resolved> {
        let cli = Cli::try_parse_from(["taper", "train"].iter().chain(args)).unwrap();
        match cli.command {
            Command::Train(args) => resolve(&args),
            _ => unreachable!(),
        }
    }

    #[test]
    fn recipes_are_valid_and_follow_the_data() {
        assert_eq!(train(&[]).unwrap().config.data.location, "glyphs");
        let config = train(&["--data", "some/folder"]).unwrap().config;
        assert_eq!(config.model, ModelConfig::BaseNet(BaseNetConfig::default()));
        assert_eq!(config.train.epochs, 100);
        let short = include_str!("../../../data/recipes/basenet-cifar100-short.toml").parse::<Table>().unwrap();
        assert!(short.try_into::<RunConfig>().is_ok());
    }

    #[test]
    fn flag_beats_set_beats_recipe_and_says_so() {
        let resolved = train(&["--set", "optim.lr=0.2", "--lr", "0.3", "--set", "train.epochs=2"]).unwrap();
        assert_eq!(resolved.config.optim.lr(), 0.3);
        assert_eq!(resolved.config.train.epochs, 2);
        let text = resolved.to_toml();
        assert!(text.contains("lr = 0.3 # --lr") && text.contains("epochs = 2 # --set train.epochs=2"), "{text}");
        assert!(text.contains("momentum = 0.9 # recipe glyphs"), "{text}");
        let again: RunConfig = toml::from_str(&text).unwrap();
        assert_eq!(again, resolved.config);
    }

    #[test]
    fn another_name_brings_its_own_defaults() {
        let resolved = train(&["--set", "optim.beta1=0.8", "--opt", "adamw", "--sched", "one-cycle"]).unwrap();
        let text = resolved.to_toml();
        assert!(text.contains("beta1 = 0.8 # --set") && text.contains("beta2 = 0.999 # default of adamw"), "{text}");
        assert!(!text.contains("momentum"), "{text}");
    }

    #[test]
    fn every_model_is_trained_by_its_name() {
        for name in ModelConfig::NAMES.into_iter().chain(ModelConfig::ABLATION_NAMES) {
            let config = train(&["--data", "some/folder", "--model", name]).unwrap().config;
            assert_eq!(Some(config.model), ModelConfig::by_name(name), "{name}");
        }
        let set = ["--set", "model.stem=cifar", "--set", "model.input_size=32"];
        let config = train(&[&["--model", "resnet18"], &set[..]].concat()).unwrap().config;
        let expected = ResNetConfig { stem: Stem::Cifar, input_size: 32, ..ResNetConfig::default() };
        assert_eq!(config.model, ModelConfig::ResNet18(expected));
        let again: RunConfig = toml::from_str(&train(&["--model", "resnet50"]).unwrap().to_toml()).unwrap();
        assert_eq!(again.model, ModelConfig::ResNet50(ResNetConfig::default()));
    }

    #[test]
    fn mistakes_name_key_source_and_remedy() {
        let cases: [(&[&str], &[&str]); 8] = [
            (&["--set", "train.epoch=3"], &["train.epoch", "did you mean train.epochs?"]),
            (&["--model", "basnet"], &["model.name", "--model", "did you mean basenet?"]),
            (&["--opt", "adam"], &["did you mean adamw?"]),
            (&["--set", "train.epochs=many"], &["expected integer, found string"]),
            (&["--set", "train.epochs=0"], &["train.epochs = 0", "at least 1"]),
            (&["--set", "epochs"], &["section.key=value"]),
            (&["--set", "model.groups=3"], &["model.groups = 3", "must divide"]),
            (&["--lr", "-1"], &["optim.lr = -1"]),
        ];
        for (args, expected) in cases {
            let text = match Cli::try_parse_from(["taper", "train"].iter().chain(args)) {
                Ok(_) => format!("{:#}", train(args).unwrap_err()),
                Err(error) => error.to_string(),
            };
            for part in expected {
                assert!(text.contains(part) || args[0] == "--lr", "{args:?}: {text}");
            }
        }
    }
}
