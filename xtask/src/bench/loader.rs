//! Crop, flip and normalisation of small images on one core.

use anyhow::Result;
use serde_json::json;

use super::programs::{Programs, number, objects};
use super::statistics::Spread;
use super::table::Table;
use super::{Section, Settings};

/// Measures in `rounds` processes.
pub(super) fn measure(programs: &Programs, settings: &Settings) -> Result<Section> {
    println!("== loader: {} rounds", settings.rounds);
    let mut lines = Vec::new();
    for _ in 0..settings.rounds.get() {
        lines.extend(objects(programs.check(1).arg("loader"))?);
    }
    let speeds: Result<Vec<f64>> = lines.iter().map(|line| number(line, "images_per_second")).collect();
    let mut table = Table::new("Loader, one core", &["measure", "images/s", "must", "goal"]);
    let speeds = Spread::of(&speeds?).map_or_else(String::new, |spread| spread.show(0));
    table.push(["crop + flip + normalise, 32×32", &speeds, "300000", "1000000"]);
    Ok(Section { tables: vec![table], figures: json!({ "processes": lines }), num_failed: 0 })
}
