//! The configuration of a run: TOML to values, and everything that is checked without the data.
#![no_main]
#![allow(dead_code, reason = "the command's modules are compiled whole")]

use libfuzzer_sys::fuzz_target;
use toml::{Table, Value};

#[path = "../../crates/cli/src/config.rs"]
mod config;
#[path = "../../crates/cli/src/device.rs"]
mod device;
#[path = "../../crates/cli/src/exit.rs"]
mod exit;
#[path = "../../crates/cli/src/interrupt.rs"]
mod interrupt;
#[path = "../../crates/cli/src/nearest.rs"]
mod nearest;

/// Whole configurations, which an input need not repeat.
const RECIPES: [&str; 3] = [
    include_str!("../../data/recipes/glyphs.toml"),
    include_str!("../../data/recipes/basenet-cifar100.toml"),
    include_str!("../../data/recipes/finetune-head.toml"),
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    check(toml::from_str(text).ok());
    let Ok(changes) = text.parse::<Table>() else { return };
    for recipe in RECIPES {
        let mut table: Table = recipe.parse().unwrap();
        merge(&mut table, &changes);
        check(table.try_into().ok());
    }
});

/// Puts the values of `changes` in place of those of `table`.
fn merge(table: &mut Table, changes: &Table) {
    for (key, value) in changes {
        match (table.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(changes)) => merge(inner, changes),
            _ => drop(table.insert(key.clone(), value.clone())),
        }
    }
}

fn check(config: Option<config::RunConfig>) {
    let Some(config) = config.filter(|config| config.validate().is_ok()) else { return };
    let cost = config.model.cost(100);
    let _ = (cost.num_parameters, config.fit(), config.data_spec(), config.last_batch());
    // What is valid is written as it was read.
    let again: config::RunConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
}
