//! The run directory: where it is, and what stands in it before the first step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Device;
use serde::{Deserialize, Serialize};
use taper_data::DataProvenance;
use taper_train::{RunFolder, create_folders, sha256_of_file, write_atomically};

use crate::base_weights::Origin;
use crate::device::{self, GpuProvenance};
use crate::exit::{bad_input, usage};
use crate::image_files::{IMAGES, ImageFiles};
use crate::images::BAD_IMAGES;
use crate::lock::{LOCK, RunLock};
use crate::prepare::{Prepared, read_json};
use crate::resolve::Resolved;

/// The Cargo features of this build.
const FEATURES: &[&str] = match (cfg!(feature = "foreign"), cfg!(feature = "cuda")) {
    (true, true) => &["foreign", "cuda"],
    (true, false) => &["foreign"],
    (false, true) => &["cuda"],
    (false, false) => &[],
};

/// What `provenance.json` says: how to come by this run again.
#[derive(Debug, Serialize)]
struct Provenance<'a> {
    version: &'static str,
    commit: &'static str,
    features: &'static [&'static str],
    device: &'static str,
    gpu: Option<GpuProvenance>,
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
    /// The files beside this one, which never change once the run has begun.
    files_sha256: BTreeMap<&'static str, String>,
}

/// Files that stand in a run directory before its provenance does.
const BEFORE_PROVENANCE: [&str; 6] =
    ["config.toml", "classes.json", "split.json", "preprocess.json", BAD_IMAGES, IMAGES];

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
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    let names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    // A process that dies before the provenance stands leaves its lock behind, and has not begun.
    let is_ours =
        |name: &String| name == LOCK || name.starts_with(".taper-") || BEFORE_PROVENANCE.contains(&name.as_str());
    let is_half_made = names.iter().any(|name| name == LOCK) && names.iter().all(is_ours);
    if names.is_empty() || is_half_made {
        return Ok(Found::Free);
    }
    if !path.join("provenance.json").is_file() {
        return Ok(Found::Foreign);
    }
    // `last.safetensors` is written when a run is complete, after its last checkpoint.
    Ok(if path.join("last.safetensors").is_file() { Found::Complete } else { Found::Interrupted })
}

/// Where a new run shall be.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// `--output`.
    Named(PathBuf),
    /// The first free number of `runs/<data>-<number>`.
    Numbered(String),
}

impl Place {
    /// The place that `--output` names, or numbers for the data.
    pub(crate) fn of(output: Option<&Path>, resolved: &Resolved) -> Self {
        if let Some(path) = output {
            return Self::Named(path.to_owned());
        }
        let location = Path::new(&resolved.config.data.location);
        let stem = location.file_name().map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned());
        Self::Numbered(stem.trim_end_matches(".tar.gz").to_lowercase())
    }

    /// Refuses a place that is taken by something else than an interrupted run.
    pub(crate) fn require_room(&self) -> Result<()> {
        let Self::Named(path) = self else { return Ok(()) };
        match look(path)? {
            Found::Free | Found::Interrupted => Ok(()),
            Found::Complete => {
                Err(usage(format!("--output {}: a finished run is there; choose another directory", path.display())))
            }
            Found::Foreign => {
                Err(usage(format!("--output {}: the directory is not empty; choose another one", path.display())))
            }
        }
    }

    /// The runs that the same command may have begun, the newest first.
    pub(crate) fn earlier_runs(&self) -> Vec<PathBuf> {
        match self {
            Self::Named(path) => vec![path.clone()],
            Self::Numbered(data) => {
                let there = (1..).map(|number| numbered(data, number)).take_while(|path| path.exists());
                there.collect::<Vec<_>>().into_iter().rev().collect()
            }
        }
    }

    /// Makes the directory and takes it. Of two processes at once, one gets it; numbers go on until one is free.
    pub(crate) fn claim(&self) -> Result<(PathBuf, RunLock)> {
        match self {
            Self::Named(path) => {
                create_folders(path)?;
                let lock = RunLock::take(path)?;
                match look(path)? {
                    Found::Free => {
                        // A process that was killed here before its run had begun may have left a file half written.
                        RunFolder::new(path, BTreeMap::new()).remove_halves()?;
                        Ok((path.clone(), lock))
                    }
                    _ => Err(usage(format!(
                        "--output {}: another process has begun a run there meanwhile; choose another directory",
                        path.display()
                    ))),
                }
            }
            Self::Numbered(data) => {
                create_folders(Path::new("runs"))?;
                for path in (1..).map(|number| numbered(data, number)) {
                    match std::fs::create_dir(&path) {
                        Ok(()) => {
                            let lock = RunLock::take(&path)?;
                            return Ok((path, lock));
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                        Err(error) => return Err(error).with_context(|| format!("cannot create {}", path.display())),
                    }
                }
                Err(anyhow::anyhow!("no free number below runs"))
            }
        }
    }
}

fn numbered(data: &str, number: u32) -> PathBuf {
    Path::new("runs").join(format!("{data}-{number:03}"))
}

/// Writes everything that stands in a run directory before the first step, provenance last. Nothing stays if that fails.
pub(crate) fn write_new(
    path: &Path,
    resolved: &Resolved,
    prepared: &Prepared,
    device: &Device,
    origin: Option<&Origin>,
) -> Result<()> {
    write_all(path, resolved, prepared, device, origin).inspect_err(|_| {
        for name in BEFORE_PROVENANCE {
            // What cannot be removed is in the way of the next run there, which says so.
            let _ = std::fs::remove_file(path.join(name));
        }
    })
}

fn write_all(
    path: &Path,
    resolved: &Resolved,
    prepared: &Prepared,
    device: &Device,
    origin: Option<&Origin>,
) -> Result<()> {
    let config = path.join("config.toml");
    write_atomically(&config, resolved.to_toml().as_bytes())?;
    write_json(&path.join("classes.json"), &prepared.data.dataset.classes())?;
    write_json(&path.join("split.json"), &prepared.split.to_manifest(&*prepared.data.dataset)?)?;
    write_json(&path.join("preprocess.json"), &prepared.preprocess)?;
    if !prepared.bad.is_empty() {
        write_json(&path.join(BAD_IMAGES), &prepared.bad)?;
    }
    if let Some(images) = ImageFiles::of(&*prepared.data.dataset) {
        write_json(&path.join(IMAGES), &images)?;
    }
    let mut files_sha256 = BTreeMap::new();
    for name in BEFORE_PROVENANCE.into_iter().filter(|name| path.join(name).is_file()) {
        files_sha256.insert(name, sha256_of_file(&path.join(name))?);
    }
    let provenance = Provenance {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("TAPER_COMMIT"),
        features: FEATURES,
        device: device::name(device),
        gpu: device::gpu_provenance(device)?,
        cpu_path: taper_kernels::cpu_path().to_string(),
        threads: rayon::current_num_threads(),
        seed: resolved.config.train.seed,
        command: std::env::args().collect(),
        data: &prepared.data.provenance,
        base_weights_sha256: origin.map(|origin| origin.sha256.clone()),
        base_weights_licence: origin.and_then(|origin| origin.licence.clone()),
        base_weights_published: origin.and_then(|origin| origin.published.clone()),
        config_sha256: sha256_of_file(&config)?,
        files_sha256,
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
