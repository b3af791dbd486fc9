//! CUB-200, the birds of Caltech and UCSD, by the publishers' own list files.
//!
//! Both releases keep their photos as `images/<class>/<file>`. That of 2011 (Wah et al. 2011, `README` in the archive)
//! lists numbered images, labels, split and classes in four files at its root. That of 2010 (Welinder et al. 2010) has
//! plain lists of paths, `lists/{train,test}.txt`, with the classes in `lists/classes.txt`; an image's class is its folder.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::folder::file_size;
use crate::open::only_fine;
use crate::photos::{Listed, Photo};
use crate::provenance::FileHasher;
use crate::{DataError, DataKind, DataSpec, FileDigest, OpenedData, Result, Split};

/// Folder of the photos in both releases.
const IMAGES: &str = "images";
/// Largest list that is read; the longest of the originals has 682,287 bytes.
const MAX_LIST_BYTES: u64 = 1 << 26;

/// Which release lies in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    Of2010,
    Of2011,
}

impl Release {
    /// The release whose list files lie in `folder`.
    pub(crate) fn of_folder(folder: &Path) -> Option<Self> {
        let has = |lists: &[&str]| lists.iter().all(|list| folder.join(list).is_file());
        if has(&["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"]) {
            return Some(Self::Of2011);
        }
        has(&["lists/train.txt", "lists/test.txt", "lists/classes.txt"]).then_some(Self::Of2010)
    }
}

/// Opens the release that lies in `root`. A photo that is listed and not there is one that cannot be read.
pub(crate) fn open_folder(root: &Path, release: Release, spec: &DataSpec) -> Result<OpenedData> {
    only_fine(spec)?;
    let images = root.join(IMAGES);
    if !images.is_dir() {
        let reason = "the list files are there, but not the photos; unpack the archive of the images here as well";
        return Err(DataError::malformed(images, reason));
    }
    let mut lists = Lists { root, digests: Vec::new() };
    let entries = match release {
        Release::Of2010 => lists.read_2010()?,
        Release::Of2011 => lists.read_2011()?,
    };
    let mut official = Split::default();
    for (index, is_train) in entries.is_train.iter().enumerate() {
        if *is_train { official.train.push(index) } else { official.test.push(index) }
    }
    let photo = |(name, label): (String, u32)| {
        let path = images.join(&name);
        Photo { bytes: file_size(&path), path, name: format!("{IMAGES}/{name}"), label }
    };
    let listed = Listed {
        files: entries.images.into_iter().map(photo).collect(),
        classes: entries.classes,
        official,
        kind: match release {
            Release::Of2010 => DataKind::Cub2002010,
            Release::Of2011 => DataKind::Cub2002011,
        },
        lists: lists.digests,
        num_ignored_files: 0,
    };
    Ok(listed.open(spec))
}

/// What the lists say.
#[derive(Debug, Default)]
struct Entries {
    classes: Vec<String>,
    /// Path below `images` and label.
    images: Vec<(String, u32)>,
    /// For each image.
    is_train: Vec<bool>,
}

/// The list files of a folder, which are digested as they are read.
struct Lists<'a> {
    root: &'a Path,
    digests: Vec<FileDigest>,
}

impl Lists<'_> {
    fn read_2011(&mut self) -> Result<Entries> {
        let classes = self.read("classes.txt")?.numbered()?;
        let images = self.read("images.txt")?;
        let (labels, split) = (self.read("image_class_labels.txt")?, self.read("train_test_split.txt")?);
        let names = images.numbered()?;
        let (label_fields, split_fields) = (labels.matching(names.len())?, split.matching(names.len())?);
        let mut entries = Entries::default();
        for (nth, name) in names.into_iter().enumerate() {
            images.check_path(nth, &name)?;
            let label = label_fields[nth].parse::<usize>().ok().filter(|label| (1..=classes.len()).contains(label));
            let label = label.ok_or_else(|| {
                let reason = format!("the class {:?} is not within 1 to {}", label_fields[nth], classes.len());
                labels.error(nth, &reason)
            })?;
            let is_train = match split_fields[nth].as_str() {
                "0" => false,
                "1" => true,
                other => return Err(split.error(nth, &format!("{other:?} is neither 0 (test) nor 1 (train)"))),
            };
            entries.images.push((name, (label - 1) as u32));
            entries.is_train.push(is_train);
        }
        entries.classes = classes;
        entries.checked(&images)
    }

    fn read_2010(&mut self) -> Result<Entries> {
        let classes = self.read("lists/classes.txt")?;
        let labels: HashMap<String, u32> = classes.lines.iter().cloned().zip(0..).collect();
        if labels.len() != classes.lines.len() {
            return Err(DataError::malformed(&classes.path, "a class is listed twice"));
        }
        let mut entries = Entries::default();
        let lists = [(self.read("lists/train.txt")?, true), (self.read("lists/test.txt")?, false)];
        for (list, is_train) in &lists {
            for (nth, name) in list.lines.iter().enumerate() {
                list.check_path(nth, name)?;
                let class = name.split('/').next().unwrap_or_default();
                let label = labels.get(class);
                let label =
                    label.ok_or_else(|| list.error(nth, &format!("the class {class:?} is not in classes.txt")))?;
                entries.images.push((name.clone(), *label));
                entries.is_train.push(*is_train);
            }
        }
        entries.classes = classes.lines.clone();
        let [(train, _), _] = &lists;
        entries.checked(train)
    }

    /// Reads a list and keeps its digest.
    fn read(&mut self, name: &str) -> Result<List> {
        let path = self.root.join(name);
        if file_size(&path).is_some_and(|bytes| bytes > MAX_LIST_BYTES) {
            return Err(DataError::malformed(path, format!("more than {MAX_LIST_BYTES} bytes for a list")));
        }
        let bytes = fs::read(&path).map_err(|source| DataError::Io { path: path.clone(), source })?;
        let mut hasher = FileHasher::default();
        hasher.update(&bytes);
        self.digests.push(hasher.finish(name.to_string()));
        let text = String::from_utf8(bytes).map_err(|_| DataError::malformed(&path, "it is not UTF-8"))?;
        let lines = text.lines().map(|line| line.trim_end().to_string());
        let mut lines: Vec<String> = lines.collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        Ok(List { path, lines })
    }
}

impl Entries {
    /// Refuses an empty set and an image that is listed twice.
    fn checked(self, list: &List) -> Result<Self> {
        if self.images.is_empty() {
            return Err(DataError::malformed(&list.path, "no image is listed"));
        }
        let mut seen = std::collections::HashSet::new();
        if let Some((name, _)) = self.images.iter().find(|(name, _)| !seen.insert(name.as_str())) {
            return Err(DataError::malformed(&list.path, format!("the image {name} is listed twice")));
        }
        Ok(self)
    }
}

/// The lines of one list.
struct List {
    path: PathBuf,
    lines: Vec<String>,
}

impl List {
    /// The second fields of lines `1 a`, `2 b` and so on, in that order.
    fn numbered(&self) -> Result<Vec<String>> {
        let field = |(nth, line): (usize, &String)| {
            let fields = line.split_once(' ').filter(|(_, field)| !field.trim().is_empty());
            let (number, field) = fields.ok_or_else(|| self.error(nth, "expected a number and a value"))?;
            if number.parse() != Ok(nth + 1) {
                return Err(self.error(nth, &format!("expected the number {}, found {number:?}", nth + 1)));
            }
            Ok(field.trim().to_string())
        };
        self.lines.iter().enumerate().map(field).collect()
    }

    /// As [`numbered`](Self::numbered), one for each image.
    fn matching(&self, num_images: usize) -> Result<Vec<String>> {
        if self.lines.len() != num_images {
            let reason = format!("{} lines for the {num_images} images of images.txt", self.lines.len());
            return Err(DataError::malformed(&self.path, reason));
        }
        self.numbered()
    }

    /// Refuses a path that leads out of the folder of images.
    fn check_path(&self, nth: usize, name: &str) -> Result<()> {
        let inside = Path::new(name).components().all(|component| matches!(component, Component::Normal(_)));
        if inside && !name.is_empty() && !name.contains('\\') {
            return Ok(());
        }
        Err(self.error(nth, &format!("{name:?} is no path below {IMAGES}")))
    }

    fn error(&self, nth: usize, reason: &str) -> DataError {
        DataError::malformed(&self.path, format!("line {}: {reason}", nth + 1))
    }
}
