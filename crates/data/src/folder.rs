//! Image files in folders named by class.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::open::only_fine;
use crate::photos::{Listed, Photo};
use crate::{DataError, DataKind, DataSpec, OpenedData, Part, Result, Split};

/// Files with these endings, in any case, are images; a file that then does not decode is an error, not another file.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "bmp", "gif", "webp"];
/// How deep folders may lie in a class folder; a link to a folder above would go on for ever.
const MAX_DEPTH: usize = 16;

/// Opens `root/{train,val,test}/<class>/*` or `root/<class>/*`. Classes are the sorted folder names, of `train` where
/// there is one; images are sorted by path. `Ok(None)` if there are no class folders.
///
/// What has an image's ending and is no readable file (a dangling link, a folder) is listed all the same, so that it is
/// counted and reported where it is read. Hidden files and folders are left out.
pub(crate) fn open_folder(root: &Path, spec: &DataSpec) -> Result<Option<OpenedData>> {
    let parts: Vec<(Part, PathBuf)> = Part::ALL
        .into_iter()
        .map(|part| (part, root.join(part.as_str())))
        .filter(|(_, folder)| folder.is_dir())
        .collect();
    let parts = if parts.is_empty() { vec![(Part::Train, root.to_path_buf())] } else { parts };
    let mut class_folders = Vec::new();
    let mut num_loose = 0;
    for (part, folder) in &parts {
        let inside = Inside::of(folder)?;
        num_loose += inside.num_files;
        class_folders.push((*part, folder, inside.folders));
    }
    // The classes are those that can be learnt; only a set without `train` takes them from elsewhere.
    let Some((_, first, names)) = class_folders.first() else { return Ok(None) };
    if names.is_empty() {
        return Ok(None);
    }
    let labels: BTreeMap<String, u32> = names.iter().cloned().zip(0..).collect();
    let (first, classes) = ((*first).clone(), names.clone());
    only_fine(spec)?;
    let mut listing = Listing { root: root.to_path_buf(), files: Vec::new(), num_ignored: num_loose };
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
    if let [class] = &classes[..] {
        return Err(DataError::OneClass { path: first, class: class.clone() });
    }
    listing.finish(classes, official).map(|listed| Some(listed.open(spec)))
}

/// What lies in a folder of class folders.
struct Inside {
    /// Names of the folders, sorted by their bytes as torchvision does; hidden ones are no classes.
    folders: Vec<String>,
    /// Files beside them, which belong to no class.
    num_files: usize,
}

impl Inside {
    fn of(folder: &Path) -> Result<Self> {
        let mut inside = Self { folders: Vec::new(), num_files: 0 };
        for path in sorted_entries(folder)? {
            if !path.is_dir() {
                inside.num_files += 1;
            } else if !is_hidden(&path) {
                // Class names go into JSON and onto the terminal; no bytes stand for one that is no text.
                let name = path.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| {
                    DataError::malformed(&path, "the name of this class folder is not UTF-8; rename it")
                })?;
                inside.folders.push(name.to_string());
            }
        }
        Ok(inside)
    }
}

/// Collects the files of all classes.
struct Listing {
    root: PathBuf,
    files: Vec<Photo>,
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
            if is_image(&path) {
                let (name, bytes) = (relative_name(&self.root, &path), file_size(&path));
                self.files.push(Photo { path, name, label, bytes });
            } else if path.is_dir() && !is_hidden(&path) {
                self.add_folder(&path, label, depth + 1)?;
            } else {
                self.num_ignored += 1;
            }
        }
        Ok(())
    }

    fn finish(self, classes: Vec<String>, official: Split) -> Result<Listed> {
        let mut names = HashSet::new();
        if let Some(file) = self.files.iter().find(|file| !names.insert(file.name.as_str())) {
            let reason = format!("another file is called {} too; rename one of them", file.name);
            return Err(DataError::malformed(&file.path, reason));
        }
        Ok(Listed {
            files: self.files,
            classes,
            official,
            kind: DataKind::ImageFolder,
            lists: Vec::new(),
            num_ignored_files: self.num_ignored,
        })
    }
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

/// Size of a file in bytes; `None` if it is not there, no file, or the system would not say.
pub(crate) fn file_size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    !is_hidden(path) && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// The path below `root`, the same on every system. Bytes that are no UTF-8 are written as `\xE9`, so that the file can
/// be named in JSON; it is opened by its path.
fn relative_name(root: &Path, path: &Path) -> String {
    let mut name = String::new();
    for component in path.strip_prefix(root).unwrap_or(path).components() {
        if !name.is_empty() {
            name.push('/');
        }
        for chunk in component.as_os_str().as_encoded_bytes().utf8_chunks() {
            name.push_str(chunk.valid());
            for byte in chunk.invalid() {
                // Writing to a string cannot fail.
                let _ = write!(name, "\\x{byte:02X}");
            }
        }
    }
    name
}
