//! Image files in folders named by class.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::open::only_fine;
use crate::provenance::sha256_of_lines;
use crate::{
    Covers, DataError, DataKind, DataProvenance, DataSpec, Dataset, OpenedData, Part, Recognised, Result, Sample,
    Split, decode,
};

/// Files with these endings, in any case, are images; a file that then does not decode is an error, not another file.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "bmp", "gif", "webp"];
/// How deep folders may lie in a class folder; a link to a folder above would go on for ever.
const MAX_DEPTH: usize = 16;

/// One image file.
#[derive(Debug)]
struct Found {
    /// Path relative to the root with `/` between.
    name: String,
    label: u32,
    bytes: u64,
}

/// Images that are decoded when they are asked for.
#[derive(Debug)]
struct ImageFolder {
    root: PathBuf,
    files: Vec<Found>,
    classes: Vec<String>,
}

/// Opens `root/{train,val,test}/<class>/*` or `root/<class>/*`. Classes are the sorted folder names, of `train` where
/// there is one; images are sorted by path. `Ok(None)` if there are no class folders.
pub(crate) fn open_folder(root: &Path, spec: &DataSpec) -> Result<Option<OpenedData>> {
    let parts: Vec<(Part, PathBuf)> = Part::ALL
        .into_iter()
        .map(|part| (part, root.join(part.as_str())))
        .filter(|(_, folder)| folder.is_dir())
        .collect();
    let parts = if parts.is_empty() { vec![(Part::Train, root.to_path_buf())] } else { parts };
    let mut class_folders = Vec::new();
    for (part, folder) in &parts {
        class_folders.push((*part, folder, subfolders(folder)?));
    }
    // The classes are those that can be learnt; only a set without `train` takes them from elsewhere.
    let Some((_, first, names)) = class_folders.first() else { return Ok(None) };
    if names.is_empty() {
        return Ok(None);
    }
    let labels: BTreeMap<String, u32> = names.iter().cloned().zip(0..).collect();
    let (first, classes) = ((*first).clone(), names.clone());
    only_fine(spec)?;
    let mut listing = Listing { root: root.to_path_buf(), files: Vec::new(), num_ignored: 0 };
    let mut official = Split::default();
    for (part, folder, names) in class_folders {
        let start = listing.files.len();
        for name in names {
            let class_folder = folder.join(&name);
            let label = *labels.get(&name).ok_or_else(|| {
                DataError::malformed(&class_folder, format!("there is no class {name:?} in {}", first.display()))
            })?;
            listing.add_class(&class_folder, label)?;
        }
        *official.get_mut(part) = (start..listing.files.len()).collect();
    }
    Ok(Some(listing.finish(classes, official, spec)))
}

/// Collects the files of all classes.
struct Listing {
    root: PathBuf,
    files: Vec<Found>,
    num_ignored: usize,
}

impl Listing {
    fn add_class(&mut self, folder: &Path, label: u32) -> Result<()> {
        let before = self.files.len();
        self.add_folder(folder, label, 0)?;
        if self.files.len() == before {
            return Err(DataError::Empty { path: folder.to_path_buf() });
        }
        Ok(())
    }

    fn add_folder(&mut self, folder: &Path, label: u32, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(DataError::malformed(folder, format!("it lies more than {MAX_DEPTH} folders deep")));
        }
        for path in sorted_entries(folder)? {
            let metadata = fs::metadata(&path).map_err(|source| DataError::Io { path: path.clone(), source })?;
            if metadata.is_dir() {
                self.add_folder(&path, label, depth + 1)?;
            } else if is_image(&path) {
                let name = relative_name(&self.root, &path)?;
                self.files.push(Found { name, label, bytes: metadata.len() });
            } else {
                self.num_ignored += 1;
            }
        }
        Ok(())
    }

    fn finish(self, classes: Vec<String>, official: Split, spec: &DataSpec) -> OpenedData {
        let provenance = DataProvenance {
            source: spec.location.clone(),
            kind: DataKind::ImageFolder,
            files: Vec::new(),
            official: Recognised::Unofficial,
            sha256: sha256_of_lines(self.files.iter().map(|file| format!("{} {}", file.name, file.bytes))),
            covers: Covers::Listing,
            num_ignored_files: self.num_ignored,
        };
        let dataset = ImageFolder { root: self.root, files: self.files, classes };
        OpenedData { dataset: Arc::new(dataset), official, train_stats: None, provenance }
    }
}

/// Names of the folders in a folder, sorted by their bytes as torchvision does; hidden ones are no classes.
fn subfolders(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for path in sorted_entries(folder)? {
        if path.is_dir() {
            let name = relative_name(folder, &path)?;
            if !name.starts_with('.') {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Paths of all that lies in a folder, sorted by their bytes.
pub(crate) fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let io_error = |source| DataError::Io { path: folder.to_path_buf(), source };
    let entries = fs::read_dir(folder).map_err(io_error)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>().map_err(io_error)?;
    paths.sort_unstable();
    Ok(paths)
}

fn is_image(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    !hidden && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// The path below `root`, the same on every system.
fn relative_name(root: &Path, path: &Path) -> Result<String> {
    let components = path.strip_prefix(root).unwrap_or(path).components();
    let names: Option<Vec<&str>> = components.map(|component| component.as_os_str().to_str()).collect();
    names.map(|names| names.join("/")).ok_or_else(|| DataError::malformed(path, "its name is not UTF-8"))
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.files[index].label
    }

    fn name(&self, index: usize) -> String {
        self.files[index].name.clone()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let file = self.files.get(index).ok_or(DataError::IndexOutOfRange { index, len: self.files.len() })?;
        let image = decode(&self.root.join(&file.name))?;
        Ok(Sample { image, label: file.label })
    }
}
