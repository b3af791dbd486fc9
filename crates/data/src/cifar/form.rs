//! The four forms in which the sets are published, and what their files are called.

use std::path::Path;

use crate::{DataKind, LabelKind, Part};

/// Which set, in which encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Binary10,
    Binary100,
    Python10,
    Python100,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Images of a part, with the position of the file in it.
    Images(Part, usize),
    /// Names of the usual classes; in the python form the one meta file has both.
    FineNames,
    /// Names of the superclasses.
    CoarseNames,
}

/// The files of one form.
struct Files {
    images: &'static [&'static str],
    names: &'static [&'static str],
}

const BINARY_10: Files = Files {
    images: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
        "test_batch.bin",
    ],
    names: &["batches.meta.txt"],
};
const BINARY_100: Files =
    Files { images: &["train.bin", "test.bin"], names: &["fine_label_names.txt", "coarse_label_names.txt"] };
const PYTHON_10: Files = Files {
    images: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"],
    names: &["batches.meta"],
};
const PYTHON_100: Files = Files { images: &["train", "test"], names: &["meta"] };

impl Form {
    const ALL: [Self; 4] = [Self::Binary10, Self::Binary100, Self::Python10, Self::Python100];

    fn files(self) -> &'static Files {
        match self {
            Self::Binary10 => &BINARY_10,
            Self::Binary100 => &BINARY_100,
            Self::Python10 => &PYTHON_10,
            Self::Python100 => &PYTHON_100,
        }
    }

    /// The form of which a folder holds a file with images. A file called `test` alone says nothing.
    pub(crate) fn of_folder(folder: &Path) -> Option<Self> {
        let holds = |name: &&'static str| *name != "test" && folder.join(name).is_file();
        Self::ALL.into_iter().find(|form| form.image_files().iter().any(holds))
    }

    /// The form that has a file of this name.
    pub(super) fn of_file(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.role(name).is_some())
    }

    pub(super) fn role(self, name: &str) -> Option<Role> {
        let files = self.files();
        if let Some(position) = files.names.iter().position(|file| *file == name) {
            return Some(if position == 0 { Role::FineNames } else { Role::CoarseNames });
        }
        let position = files.images.iter().position(|file| *file == name)?;
        let part = if position + 1 == files.images.len() { Part::Test } else { Part::Train };
        Some(Role::Images(part, position))
    }

    /// Those that have to be there, training first, the test file last.
    pub(super) fn image_files(self) -> &'static [&'static str] {
        self.files().images
    }

    pub(super) fn file_names(self) -> impl Iterator<Item = &'static str> {
        let files = self.files();
        files.images.iter().chain(files.names).copied()
    }

    pub(super) fn is_binary(self) -> bool {
        matches!(self, Self::Binary10 | Self::Binary100)
    }

    pub(super) fn is_cifar_100(self) -> bool {
        matches!(self, Self::Binary100 | Self::Python100)
    }

    pub(super) fn num_classes(self, labels: LabelKind) -> usize {
        match (self.is_cifar_100(), labels) {
            (false, _) => 10,
            (true, LabelKind::Fine) => 100,
            (true, LabelKind::Coarse) => 20,
        }
    }

    pub(super) fn kind(self) -> DataKind {
        match self {
            Self::Binary10 => DataKind::Cifar10Binary,
            Self::Binary100 => DataKind::Cifar100Binary,
            Self::Python10 => DataKind::Cifar10Python,
            Self::Python100 => DataKind::Cifar100Python,
        }
    }
}
