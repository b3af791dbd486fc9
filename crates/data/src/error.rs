//! The one error type of the crate.

use std::path::PathBuf;

/// What a function of this crate returns.
pub type Result<T> = std::result::Result<T, DataError>;

/// Why data could not be found, read, split or turned into a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The path does not exist.
    #[error(
        "no such file or folder: {}; give a path that exists or a built-in set: {}",
        path.display(),
        crate::BUILT_IN.join(", ")
    )]
    Missing {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The folder is there, but it holds no images.
    #[error("no images in folder {}; put images there or leave the folder out", path.display())]
    Empty {
        /// The folder without images.
        path: PathBuf,
    },
    /// The folder holds one class only, so that there is nothing to tell apart.
    #[error("one class only in folder {}: {class}; a classifier needs at least two class folders", path.display())]
    OneClass {
        /// The folder of class folders.
        path: PathBuf,
        /// Name of the class.
        class: String,
    },
    /// The path exists, but it is in none of the forms that [`open`](crate::open) reads.
    #[error(
        "{} is not a data set: {reason}; expected a CIFAR folder or .tar.gz, CUB-200's own folder, \
         root/{{train,val,test}}/<class>/*, or root/<class>/*",
        path.display()
    )]
    UnknownLayout {
        /// The path as it was given.
        path: PathBuf,
        /// What was found there instead.
        reason: String,
    },
    /// A file is not what its name and place say: truncated, of a wrong size, or with a wrong structure.
    #[error("malformed file {}: {reason}", path.display())]
    Malformed {
        /// The file, with the archive before it if it lies in one.
        path: PathBuf,
        /// What is wrong, and with which record if it is one.
        reason: String,
    },
    /// A stored label is not the index of a class.
    #[error(
        "label out of range in {}: record {record} has label {label}, but there are {num_classes} classes",
        path.display()
    )]
    LabelOutOfRange {
        /// The file, with the archive before it if it lies in one.
        path: PathBuf,
        /// Position of the record in the file, from 0.
        record: usize,
        /// The label found there.
        label: i64,
        /// The number of classes; labels run from 0 to one less.
        num_classes: usize,
    },
    /// An archive has an entry that could reach outside of its folder. Nothing of the archive is used.
    #[error("refused archive {}: entry {entry:?} {reason}", archive.display())]
    UnsafeEntry {
        /// The archive.
        archive: PathBuf,
        /// Path of the entry as the archive spells it.
        entry: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A file could not be decoded as an image.
    #[error("cannot decode image {}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        #[source]
        source: ::image::ImageError,
    },
    /// The operating system refused to read a file or folder.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A setting has a value that cannot work.
    #[error("invalid {option}: {reason}")]
    InvalidOption {
        /// Name of the setting.
        option: &'static str,
        /// Why it cannot work, and what would.
        reason: String,
    },
    /// The pixels of an image do not fit its height and width.
    #[error("an image of {height}x{width} needs {expected} bytes of RGB, found {found}")]
    ImageShape {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// `height * width * 3`.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A transform cannot work on an image of this size.
    #[error("cannot {operation} an image of {height}x{width}: {reason}")]
    Transform {
        /// What was to be done.
        operation: &'static str,
        /// Rows of the image.
        height: usize,
        /// Columns of the image.
        width: usize,
        /// Why it cannot be done.
        reason: String,
    },
    /// The transforms of a loader do not work on one of its images.
    #[error("cannot use image {name}")]
    Sample {
        /// Name of the image in its data set.
        name: String,
        /// What does not work.
        #[source]
        source: Box<DataError>,
    },
    /// The images of one batch have different sizes.
    #[error(
        "images of one batch differ in size: {name} is {}x{}, those before it {}x{}; resize or crop to one size",
        found[0], found[1], expected[0], expected[1]
    )]
    BatchShape {
        /// Name of the first image that differs.
        name: String,
        /// `[height, width]` of the images before it.
        expected: [usize; 2],
        /// `[height, width]` of this one.
        found: [usize; 2],
    },
    /// An index is not smaller than the length of the data set.
    #[error("sample {index} of a data set of {len}")]
    IndexOutOfRange {
        /// The index asked for.
        index: usize,
        /// Length of the data set.
        len: usize,
    },
    /// A split manifest and a data set do not name the same images.
    #[error(
        "the split does not fit the data: {}{}{}; use the data set that the split was made from",
        named("images of the split missing in the data", missing),
        if missing.is_empty() || surplus.is_empty() { "" } else { ", " },
        named("images of the data missing in the split", surplus)
    )]
    SplitMismatch {
        /// Names that the split has and the data set has not.
        missing: Vec<String>,
        /// Names that the data set has and the split has not.
        surplus: Vec<String>,
    },
    /// A split names one image twice.
    #[error("the split names image {name} twice")]
    SplitDuplicate {
        /// The name.
        name: String,
    },
    /// A worker thread of the loader panicked, or could not be started.
    #[error("a loader worker failed at batch {batch_index}: {reason}")]
    Worker {
        /// The batch that it was making, from 0.
        batch_index: usize,
        /// The panic's message, or the operating system's.
        reason: String,
    },
}

impl DataError {
    pub(crate) fn malformed(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), reason: reason.into() }
    }
}

/// Says how many names there are and spells the first three, so that the message stays short on a large set.
fn named(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let more = if names.len() > 3 { ", ..." } else { "" };
    let first: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    format!("{} {what} ({}{more})", names.len(), first.join(", "))
}
