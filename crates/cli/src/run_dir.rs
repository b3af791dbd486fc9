//! The run directory: where it is, and what stands in it before the first step.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use taper_data::DataProvenance;
use taper_train::{sha256_of_file, write_atomically};

use crate::base_weights::Origin;
use crate::exit::{bad_input, usage};
use crate::images::BAD_IMAGES;
use crate::prepare::{Prepared, read_json};
use crate::resolve::Resolved;

/// What `provenance.json` says: how to come by this run again.
#[derive(Debug, Serialize)]
struct Provenance<'a> {
    version: &'static str,
    commit: &'static str,
    features: &'static [&'static str],
    device: &'static str,
    cpu_path: String,
    threads: usize,
    seed: u64,
    command: Vec<String>,
    data: &'a DataProvenance,
    base_weights_sha256: Option<String>,
    base_weights_licence: Option<String>,
    /// Repository, commit and file.
    base_weights_published: Option<String>,
    config_sha256: String,
}

/// What a directory given as `--output` or `--resume` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Found {
    /// Nothing: a new run may be made there.
    Free,
    /// A run that has not ended by itself.
    Interrupted,
    /// A run that has.
    Complete,
    /// Something else.
    Foreign,
}

/// Looks at a directory without changing it.
pub(crate) fn look(path: &Path) -> Result<Found> {
    if !path.exists() {
        return Ok(Found::Free);
    }
    let mut entries = std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    if entries.next().is_none() {
        return Ok(Found::Free);
    }
    if !path.join("provenance.json").is_file() {
        return Ok(Found::Foreign);
    }
    // `last.safetensors` is written when a run is complete, after its last checkpoint.
    Ok(if path.join("last.safetensors").is_file() { Found::Complete } else { Found::Interrupted })
}

/// The directory of a new run: `--output`, or the first free number below `runs`.
pub(crate) fn choose(output: Option<&Path>, resolved: &Resolved) -> Result<PathBuf> {
    if let Some(path) = output {
        return match look(path)? {
            Found::Free | Found::Interrupted => Ok(path.to_owned()),
            Found::Complete => {
                Err(usage(format!("--output {}: a finished run is there; choose another directory", path.display())))
            }
            Found::Foreign => {
                Err(usage(format!("--output {}: the directory is not empty; choose another one", path.display())))
            }
        };
    }
    let location = Path::new(&resolved.config.data.location);
    let stem = location.file_name().map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned());
    let data = stem.trim_end_matches(".tar.gz").to_lowercase();
    let free = |number: u32| Path::new("runs").join(format!("{data}-{number:03}"));
    (1..).map(free).find(|path| !path.exists()).context("no free number below runs")
}

/// Writes everything that stands in a run directory before the first step, provenance last.
pub(crate) fn write_new(
    path: &Path,
    resolved: &Resolved,
    prepared: &Prepared,
    device: &'static str,
    origin: Option<&Origin>,
) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    let config = path.join("config.toml");
    write_atomically(&config, resolved.to_toml().as_bytes())?;
    write_json(&path.join("classes.json"), &prepared.data.dataset.classes())?;
    write_json(&path.join("split.json"), &prepared.split.to_manifest(&*prepared.data.dataset)?)?;
    write_json(&path.join("preprocess.json"), &prepared.preprocess)?;
    if !prepared.bad.is_empty() {
        write_json(&path.join(BAD_IMAGES), &prepared.bad)?;
    }
    let provenance = Provenance {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("TAPER_COMMIT"),
        features: &[],
        device,
        cpu_path: taper_kernels::cpu_path().to_string(),
        threads: rayon::current_num_threads(),
        seed: resolved.config.train.seed,
        command: std::env::args().collect(),
        data: &prepared.data.provenance,
        base_weights_sha256: origin.map(|origin| origin.sha256.clone()),
        base_weights_licence: origin.and_then(|origin| origin.licence.clone()),
        base_weights_published: origin.and_then(|origin| origin.published.clone()),
        config_sha256: sha256_of_file(&config)?,
    };
    write_json(&path.join("provenance.json"), &provenance)
}

/// The base weights that a run wrote down, if it started from any.
pub(crate) fn origin_of(run: &Path) -> Result<Option<Origin>> {
    /// What is read back of `provenance.json`.
    #[derive(Deserialize)]
    struct Written {
        #[serde(default)]
        base_weights_sha256: Option<String>,
        #[serde(default)]
        base_weights_licence: Option<String>,
        #[serde(default)]
        base_weights_published: Option<String>,
    }
    let written: Written = read_json(&run.join("provenance.json"))?;
    Ok(written.base_weights_sha256.map(|sha256| Origin {
        sha256,
        licence: written.base_weights_licence,
        published: written.base_weights_published,
    }))
}

/// Checks that `--resume` names a run.
pub(crate) fn require_run(path: &Path) -> Result<()> {
    match look(path)? {
        Found::Interrupted | Found::Complete => Ok(()),
        Found::Free => Err(bad_input(format!("--resume {}: no run there", path.display()))),
        Found::Foreign => {
            Err(bad_input(format!("--resume {}: not a run directory (no provenance.json)", path.display())))
        }
    }
}

/// Writes indented JSON, whole.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(write_atomically(path, &text)?)
}
