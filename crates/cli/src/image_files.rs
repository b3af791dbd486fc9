//! What the image files of a run were, so that each later change is noticed and named.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use taper_data::Dataset;
use taper_train::sha256_of_file;

/// File of a run that lists the image files of its data set.
pub(crate) const IMAGES: &str = "images.json";
/// Names of each kind of change that a message spells out.
const MAX_NAMES: usize = 5;

/// One image file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageFile {
    pub(crate) class: String,
    pub(crate) stamp: Stamp,
    /// Of its content; `None` if it could not be read.
    pub(crate) sha256: Option<String>,
}

/// What the system says of a file. One for which it says the same is not read again to be compared: whatever is written,
/// moved or put in its place changes the time of the last change or the number, also where the time of writing is put
/// back or all files have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stamp {
    bytes: u64,
    modified_nanos: i64,
    changed_nanos: i64,
    inode: u64,
}

/// All image files of a data set, by the names that it gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ImageFiles(pub(crate) BTreeMap<String, ImageFile>);

impl ImageFiles {
    /// Reads all files of a data set; `None` if its images do not lie in files of their own.
    pub(crate) fn of(dataset: &dyn Dataset) -> Option<Self> {
        dataset.file(0)?;
        let read = |index: usize| Some((dataset.name(index), ImageFile::read(dataset, index)?));
        Some(Self((0..dataset.len()).into_par_iter().filter_map(read).collect()))
    }

    /// What has changed since, in words; nothing if all is as it was. The content of images that the run leaves out does
    /// not matter.
    pub(crate) fn differences(&self, dataset: &dyn Dataset, left_out: &BTreeSet<String>) -> Vec<String> {
        let now: BTreeMap<String, usize> = (0..dataset.len()).map(|index| (dataset.name(index), index)).collect();
        let missing: BTreeSet<&String> = self.0.keys().filter(|name| !now.contains_key(*name)).collect();
        let new: Vec<(&String, usize)> =
            now.iter().filter(|(name, _)| !self.0.contains_key(*name)).map(|(name, index)| (name, *index)).collect();
        let moves = self.moves(dataset, &missing, &new);
        let moved_from: BTreeSet<&String> = moves.iter().map(|(from, _)| *from).collect();
        let moved_to: BTreeSet<&String> = moves.iter().map(|(_, to)| *to).collect();
        let changed = |index: &usize| {
            let name = dataset.name(*index);
            let file = self.0.get(&name).filter(|_| !left_out.contains(&name))?;
            file.has_changed(dataset, *index).then_some(name)
        };
        let indices: Vec<usize> = now.values().copied().collect();
        let changed: Vec<String> = indices.par_iter().filter_map(changed).collect();
        let relabelled = now.iter().filter_map(|(name, index)| {
            let (was, is) = (&self.0.get(name)?.class, class_of(dataset, *index));
            (was != is).then(|| format!("{name} from {was} to {is}"))
        });
        [
            listed("with another content", changed),
            listed("of another class", relabelled.collect()),
            listed("moved", moves.iter().map(|(from, to)| format!("{from} to {to}")).collect()),
            listed("missing", missing.difference(&moved_from).map(ToString::to_string).collect()),
            listed(
                "new",
                new.iter().filter(|(name, _)| !moved_to.contains(name)).map(|(name, _)| name.to_string()).collect(),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Files that are found under another name, by their content.
    fn moves<'a>(
        &'a self,
        dataset: &dyn Dataset,
        missing: &BTreeSet<&'a String>,
        new: &[(&'a String, usize)],
    ) -> Vec<(&'a String, &'a String)> {
        let mut by_content: HashMap<&str, Vec<&String>> = HashMap::new();
        for name in missing.iter().rev() {
            if let Some(sha256) = self.0.get(*name).and_then(|file| file.sha256.as_deref()) {
                by_content.entry(sha256).or_default().push(name);
            }
        }
        if by_content.is_empty() {
            return Vec::new();
        }
        let read = |(name, index): &(&'a String, usize)| Some((*name, ImageFile::read(dataset, *index)?.sha256?));
        let read: Vec<(&String, String)> = new.par_iter().filter_map(read).collect();
        read.into_iter().filter_map(|(to, sha256)| Some((by_content.get_mut(sha256.as_str())?.pop()?, to))).collect()
    }
}

impl ImageFile {
    fn read(dataset: &dyn Dataset, index: usize) -> Option<Self> {
        let path = dataset.file(index)?;
        // Before the content: a file that is written to in between is read again.
        let stamp = Stamp::of(path).unwrap_or_default();
        let class = class_of(dataset, index).to_owned();
        Some(Self { class, stamp, sha256: sha256_of_file(path).ok() })
    }

    fn has_changed(&self, dataset: &dyn Dataset, index: usize) -> bool {
        let Some(path) = dataset.file(index) else { return true };
        match Stamp::of(path) {
            Some(stamp) if stamp == self.stamp => false,
            Some(stamp) if stamp.bytes != self.stamp.bytes => true,
            _ => sha256_of_file(path).ok() != self.sha256,
        }
    }
}

fn class_of(dataset: &dyn Dataset, index: usize) -> &str {
    dataset.classes().get(dataset.label(index) as usize).map_or("", String::as_str)
}

impl Stamp {
    #[cfg(unix)]
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok()?;
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Some(Self {
            bytes: metadata.len(),
            modified_nanos: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed_nanos: nanos(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        })
    }

    /// Elsewhere every file is read again.
    #[cfg(not(unix))]
    fn of(_: &Path) -> Option<Self> {
        None
    }
}

/// How many there are, and the first of them.
fn listed(what: &str, names: Vec<String>) -> Option<String> {
    let more = if names.len() > MAX_NAMES { ", …" } else { "" };
    let shown: Vec<&str> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
    (!names.is_empty()).then(|| {
        let images = if names.len() == 1 { "image" } else { "images" };
        format!("{} {images} {what} ({}{more})", names.len(), shown.join(", "))
    })
}
