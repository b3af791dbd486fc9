//! Image files that are decoded when they are asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::provenance::sha256_of_lines;
use crate::{
    Covers, DataKind, DataProvenance, DataSpec, Dataset, FileDigest, OpenedData, Recognised, Result, Sample, Split,
    decode,
};

/// One image file.
#[derive(Debug)]
pub(crate) struct Photo {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// What identifies it: its path relative to the root with `/` between.
    pub(crate) name: String,
    pub(crate) label: u32,
    /// Its size; `None` if the system would not say, and then it will not be read either.
    pub(crate) bytes: Option<u64>,
}

/// All files of a set, in the order of their indices.
#[derive(Debug)]
pub(crate) struct Photos {
    files: Vec<Photo>,
    classes: Vec<String>,
}

/// What is known of a set of photos when its files are listed.
pub(crate) struct Listed {
    pub(crate) files: Vec<Photo>,
    pub(crate) classes: Vec<String>,
    pub(crate) official: Split,
    pub(crate) kind: DataKind,
    /// The lists that were read, where there are any.
    pub(crate) lists: Vec<FileDigest>,
    pub(crate) num_ignored_files: usize,
}

impl Listed {
    /// The set with all that [`open`](crate::open) gives.
    pub(crate) fn open(self, spec: &DataSpec) -> OpenedData {
        let line = |file: &Photo| match file.bytes {
            Some(bytes) => format!("{} {bytes}", file.name),
            None => format!("{} unreadable", file.name),
        };
        let lists = self.lists.iter().map(|list| format!("{} {}", list.name, list.sha256));
        let provenance = DataProvenance {
            source: spec.location.clone(),
            kind: self.kind,
            official: Recognised::Unofficial,
            sha256: sha256_of_lines(lists.chain(self.files.iter().map(line))),
            files: self.lists,
            covers: Covers::Listing,
            num_ignored_files: self.num_ignored_files,
        };
        let dataset = Photos { files: self.files, classes: self.classes };
        OpenedData { dataset: Arc::new(dataset), official: self.official, train_stats: None, provenance }
    }
}

impl Dataset for Photos {
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

    fn file(&self, index: usize) -> Option<&Path> {
        self.files.get(index).map(|file| file.path.as_path())
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let len = self.files.len();
        let file = self.files.get(index).ok_or(crate::DataError::IndexOutOfRange { index, len })?;
        Ok(Sample { image: decode(&file.path)?, label: file.label })
    }
}
