//! One door to all forms of data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cifar::{self, Form};
use crate::cub::{self, Release};
use crate::folder;
use crate::glyphs::Glyphs;
use crate::{ChannelStats, DataError, DataProvenance, Dataset, Result, Split};

/// Names of the sets that need no files.
pub const BUILT_IN: [&str; 1] = ["glyphs"];

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// A built-in name or a path. A folder that has a built-in name is meant by `./name`.
    pub location: String,
    /// Which labels to read.
    #[serde(default)]
    pub labels: LabelKind,
}

impl DataSpec {
    /// The data at `location` with their usual labels.
    pub fn new(location: impl Into<String>) -> Self {
        Self { location: location.into(), labels: LabelKind::Fine }
    }
}

/// Which of the labels of a set to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelKind {
    /// The usual ones.
    #[default]
    Fine,
    /// The 20 superclasses of CIFAR-100.
    Coarse,
}

/// A data set, how its publisher divides it, and where it came from.
#[derive(Debug, Clone)]
pub struct OpenedData {
    /// All images, of all parts.
    pub dataset: Arc<dyn Dataset>,
    /// The publisher's parts. `val` is empty where there is none; an image folder without split folders is all `train`.
    pub official: Split,
    /// Mean and deviation of the official training images, where they are known without reading them.
    pub train_stats: Option<ChannelStats>,
    /// Where the data came from.
    pub provenance: DataProvenance,
}

/// Finds out what lies at `spec.location` and opens it.
///
/// Read are: the built-in `glyphs`; CIFAR-10 and CIFAR-100 in the binary and the python form, as a folder (itself or one
/// level down) or as the `.tar.gz`, which is never unpacked to disk; CUB-200 of 2010 and 2011 by its own lists, as a
/// folder (itself or one level down), with its official split as train and test; image folders
/// `root/{train,val,test}/<class>/*` and `root/<class>/*`. CIFAR is read into memory, photos when they are asked for.
///
/// # Errors
/// [`DataError::Missing`], [`DataError::Empty`], [`DataError::OneClass`] and [`DataError::UnknownLayout`] if there is
/// nothing to open or nothing to tell apart; [`DataError::Malformed`], [`DataError::LabelOutOfRange`] and [`DataError::UnsafeEntry`] if the files are not what
/// they should be.
pub fn open(spec: &DataSpec) -> Result<OpenedData> {
    if spec.location == BUILT_IN[0] {
        return Glyphs::open(spec);
    }
    let path = Path::new(&spec.location);
    let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DataError::Missing { path: path.to_path_buf() },
        _ => DataError::Io { path: path.to_path_buf(), source },
    })?;
    if metadata.is_dir() { open_folder(path, spec) } else { open_file(path, spec) }
}

fn open_file(path: &Path, spec: &DataSpec) -> Result<OpenedData> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let unknown = |reason: &str| DataError::UnknownLayout { path: path.to_path_buf(), reason: reason.to_string() };
    if !name.ends_with(".tar.gz") && !name.ends_with(".tgz") {
        return Err(unknown("it is a file that does not end in .tar.gz or .tgz"));
    }
    cifar::open_archive(path, spec)?.ok_or_else(|| unknown("the archive holds no file of CIFAR-10 or CIFAR-100"))
}

fn open_folder(path: &Path, spec: &DataSpec) -> Result<OpenedData> {
    let entries = folder::sorted_entries(path)?;
    if entries.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf() });
    }
    let inside = entries.into_iter().filter(|entry| entry.is_dir());
    let folders: Vec<PathBuf> = std::iter::once(path.to_path_buf()).chain(inside).collect();
    if let Some((folder, form)) = folders.iter().find_map(|folder| Some((folder, Form::of_folder(folder)?))) {
        return cifar::open_folder(folder, form, spec);
    }
    if let Some((folder, release)) = folders.iter().find_map(|folder| Some((folder, Release::of_folder(folder)?))) {
        return cub::open_folder(folder, release, spec);
    }
    folder::open_folder(path, spec)?.ok_or_else(|| {
        let reason = "it has neither CIFAR files nor CUB lists nor folders named by class".to_string();
        DataError::UnknownLayout { path: path.to_path_buf(), reason }
    })
}

/// Refuses coarse labels for the sets that have none.
pub(crate) fn only_fine(spec: &DataSpec) -> Result<()> {
    match spec.labels {
        LabelKind::Fine => Ok(()),
        LabelKind::Coarse => Err(DataError::InvalidOption {
            option: "labels",
            reason: format!("only CIFAR-100 has coarse labels, {} has not", spec.location),
        }),
    }
}
