//! `taper export`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use taper_hub::weights::{Naming, Source, WeightsFile, export};
use taper_train::{write_atomically, write_weights};

use crate::args::{ExportArgs, ExportFormat};
use crate::exit::{Ended, bad_input, usage};
use crate::trained::{Described, weights_file};

/// Runs the command.
pub(crate) fn run(args: &ExportArgs) -> Result<Ended> {
    let path = weights_file(&args.weights)?;
    let described = Described::of(WeightsFile::read(&path)?, &path)?;
    described.tell(&path);
    let card = &described.card;
    if card.classes.is_empty() {
        return Err(bad_input(format!("{} has no head (no fc.weight), so no library would load it", path.display())));
    }
    let source = Source {
        architecture: &card.architecture,
        tensors: &described.tensors,
        classes: &card.classes,
        preprocessing: &card.preprocessing,
        licence: card.licence.as_deref(),
    };
    let exported = export(&source, naming(args.format))?;
    let (weights, folder) = places(&args.output);
    let documents: Vec<(PathBuf, &str)> =
        exported.documents.iter().map(|(name, text)| (folder.join(name), text.as_str())).collect();
    let targets = || std::iter::once(&weights).chain(documents.iter().map(|(path, _)| path));
    require_free(targets())?;
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let metadata = card.to_metadata()?;
    let metadata: BTreeMap<&str, &str> = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    write_weights(&weights, exported.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), &metadata)?;
    for (path, text) in &documents {
        write_atomically(path, text.as_bytes())?;
    }
    targets().for_each(|path| println!("{}", path.display()));
    Ok(Ended::Done)
}

fn naming(format: ExportFormat) -> Naming {
    match format {
        ExportFormat::Torchvision => Naming::Torchvision,
        ExportFormat::Timm => Naming::Timm,
        ExportFormat::Transformers => Naming::Transformers,
    }
}

/// The weights file, and the folder of the configurations.
fn places(output: &Path) -> (PathBuf, PathBuf) {
    if output.extension().is_some_and(|extension| extension == "safetensors") && !output.is_dir() {
        let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return (output.to_owned(), folder.to_owned());
    }
    (output.join("model.safetensors"), output.to_owned())
}

fn require_free<'a>(targets: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    for path in targets {
        if path.symlink_metadata().is_ok() {
            return Err(usage(format!("--output: {} is already there; choose another place", path.display())));
        }
    }
    Ok(())
}
