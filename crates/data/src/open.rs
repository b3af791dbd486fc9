//! One door to all forms of data.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::glyphs::Glyphs;
use crate::{DataError, DataProvenance, Dataset, Result, Split};

/// Names of the sets that need no files.
pub const BUILT_IN: [&str; 1] = ["glyphs"];

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// A built-in name or a path. A folder that has a built-in name is meant by `./name`.
    pub location: String,
    /// Which labels to read.
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
    /// Where the data came from.
    pub provenance: DataProvenance,
}

/// Finds out what lies at `spec.location` and opens it.
///
/// Read are: the built-in `glyphs`; CIFAR-10 and CIFAR-100 in the binary and the python form, as a folder (itself or one
/// level down) or as the `.tar.gz`, which is never unpacked to disk; image folders `root/{train,val,test}/<class>/*` and
/// `root/<class>/*`. CIFAR is read into memory, images of a folder when they are asked for.
///
/// # Errors
/// [`DataError::Missing`], [`DataError::Empty`] and [`DataError::UnknownLayout`] if there is nothing to open;
/// [`DataError::Malformed`], [`DataError::LabelOutOfRange`] and [`DataError::UnsafeEntry`] if the files are not what
/// they should be.
pub fn open(spec: &DataSpec) -> Result<OpenedData> {
    if spec.location == BUILT_IN[0] {
        return Glyphs::open(spec);
    }
    let path = Path::new(&spec.location);
    Err(DataError::Missing { path: path.to_path_buf() })
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
