//! A split written down by the names of its images.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{DataError, Dataset, Part, Result, Split};

/// A split as it is written to `split.json`: the names of the images, per part.
///
/// Names, not indices, so that a file that was added to or taken from a folder is noticed instead of shifting the split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitManifest {
    /// For learning.
    pub train: Vec<String>,
    /// For choosing.
    pub val: Vec<String>,
    /// For the final figure.
    pub test: Vec<String>,
}

impl Split {
    /// The names behind the indices of this split.
    ///
    /// # Errors
    /// [`DataError::IndexOutOfRange`] if the split is not one of `dataset`.
    pub fn to_manifest(&self, dataset: &dyn Dataset) -> Result<SplitManifest> {
        let len = dataset.len();
        let names = |part: Part| -> Result<Vec<String>> {
            let name = |&index: &usize| {
                if index < len { Ok(dataset.name(index)) } else { Err(DataError::IndexOutOfRange { index, len }) }
            };
            self.get(part).iter().map(name).collect()
        };
        Ok(SplitManifest { train: names(Part::Train)?, val: names(Part::Val)?, test: names(Part::Test)? })
    }
}

impl SplitManifest {
    /// The names of one part.
    pub fn get(&self, part: Part) -> &[String] {
        match part {
            Part::Train => &self.train,
            Part::Val => &self.val,
            Part::Test => &self.test,
        }
    }

    /// Finds the images of this manifest in `dataset`.
    ///
    /// # Errors
    /// [`DataError::SplitMismatch`] with the images that only one of the two has; [`DataError::SplitDuplicate`] if an
    /// image is named twice.
    pub fn resolve(&self, dataset: &dyn Dataset) -> Result<Split> {
        // `None` marks a name that a part has taken.
        let mut indices: HashMap<String, Option<usize>> =
            (0..dataset.len()).map(|index| (dataset.name(index), Some(index))).collect();
        let mut split = Split::default();
        let mut missing = Vec::new();
        for part in Part::ALL {
            for name in self.get(part) {
                match indices.get_mut(name).map(Option::take) {
                    Some(Some(index)) => split.get_mut(part).push(index),
                    Some(None) => return Err(DataError::SplitDuplicate { name: name.clone() }),
                    None => missing.push(name.clone()),
                }
            }
            split.get_mut(part).sort_unstable();
        }
        let mut surplus: Vec<String> = indices.into_iter().filter_map(|(name, index)| index.map(|_| name)).collect();
        surplus.sort_unstable();
        if missing.is_empty() && surplus.is_empty() {
            return Ok(split);
        }
        Err(DataError::SplitMismatch { missing, surplus })
    }
}
