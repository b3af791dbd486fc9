//! The data sets that are known by name.

use crate::catalog::most_alike;
use crate::download::{FetchError, Result, Sum};

/// A data set: its archives, and what they hold.
///
/// The table is [`DATA_SETS`]; a set of one's own is fetched the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSet<'a> {
    /// What it is called on the command line.
    pub name: &'a str,
    /// Name of the folder that is made.
    pub folder: &'a str,
    /// Folder inside the archives whose content is wanted; what lies beside it is kept too.
    pub top: Option<&'a str>,
    /// Its archives (`.tar.gz`), unpacked into the same folder in this order.
    pub archives: &'a [Archive<'a>],
    /// No more bytes than this are unpacked.
    pub most_bytes: u64,
    /// No more files and folders than this are unpacked.
    pub most_files: u64,
    /// Its terms of use, in the publisher's words or few of ours.
    pub terms: &'a str,
}

/// An archive and how to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive<'a> {
    /// Its file name.
    pub file: &'a str,
    /// Where it is, the publisher's own address first; the next is tried if one fails.
    pub urls: &'a [&'a str],
    /// Bytes, where published.
    pub size: Option<u64>,
    /// Checksums as published; all must hold.
    pub sums: &'a [PublishedSum<'a>],
}

/// A checksum as published, in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedSum<'a> {
    /// Old archives have only this one. It guards against damage, not against forgery.
    Md5(&'a str),
    /// SHA-256.
    Sha256(&'a str),
}

use PublishedSum::{Md5, Sha256};

impl PublishedSum<'_> {
    pub(crate) fn sum(&self) -> Sum {
        match self {
            Md5(hex) => Sum::Md5((*hex).to_owned()),
            Sha256(hex) => Sum::Sha256((*hex).to_owned()),
        }
    }
}

impl Archive<'_> {
    /// A bound for an archive whose size is not published: CUB's images, the largest here, have 1.15 GB.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.size.unwrap_or(2 << 30)
    }
}

/// Both CIFARs unpack to less than 200 MB in less than ten files.
const CIFAR_BYTES: u64 = 400 << 20;
const CIFAR_FILES: u64 = 100;
/// CUB-200-2011 has 11,788 photos and about 30 lists in 1.2 GB.
const CUB_BYTES: u64 = 4 << 30;
const CUB_FILES: u64 = 50_000;

const CIFAR_TERMS: &str = "Krizhevsky 2009, \"Learning Multiple Layers of Features from Tiny Images\", to be cited";
const CUB_TERMS: &str = "photos from Flickr, for non-commercial research and education";

/// All data sets that are known by name.
///
/// CIFAR: addresses and MD5 as <https://www.cs.toronto.edu/~kriz/cifar.html> gives them (the page has moved to the second
/// address); those of the Python versions are in torchvision's `datasets/cifar.py` too.
///
/// CUB-200-2011: <https://data.caltech.edu/records/65de6-vp158> gives address and MD5. SHA-256 and size, and those of
/// CUB-200 (2010), are in TensorFlow Datasets' `url_checksums/caltech_birds{2010,2011}.txt` and torchvision's
/// `prototype/datasets/_builtin/cub200.py`; the MD5 of the 2010 photos is in Avalanche's `datasets/cub200`. The publisher's
/// own address of 2010 comes first, his copies at Google Drive, which both libraries name, second.
pub const DATA_SETS: &[DataSet<'static>] = &[
    DataSet {
        name: "cifar-10",
        folder: "cifar-10-batches-bin",
        top: Some("cifar-10-batches-bin"),
        archives: &[Archive {
            file: "cifar-10-binary.tar.gz",
            urls: &[
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
            ],
            size: None,
            sums: &[Md5("c32a1d4ab5d03f1284b67883e8d87530")],
        }],
        most_bytes: CIFAR_BYTES,
        most_files: CIFAR_FILES,
        terms: CIFAR_TERMS,
    },
    DataSet {
        name: "cifar-100",
        folder: "cifar-100-binary",
        top: Some("cifar-100-binary"),
        archives: &[Archive {
            file: "cifar-100-binary.tar.gz",
            urls: &[
                "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-100-binary.tar.gz",
            ],
            size: None,
            sums: &[Md5("03b5dce01913d631647c71ecec9e9cb8")],
        }],
        most_bytes: CIFAR_BYTES,
        most_files: CIFAR_FILES,
        terms: CIFAR_TERMS,
    },
    DataSet {
        name: "cifar-10-python",
        folder: "cifar-10-batches-py",
        top: Some("cifar-10-batches-py"),
        archives: &[Archive {
            file: "cifar-10-python.tar.gz",
            urls: &[
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-10-python.tar.gz",
            ],
            size: None,
            sums: &[Md5("c58f30108f718f92721af3b95e74349a")],
        }],
        most_bytes: CIFAR_BYTES,
        most_files: CIFAR_FILES,
        terms: CIFAR_TERMS,
    },
    DataSet {
        name: "cifar-100-python",
        folder: "cifar-100-python",
        top: Some("cifar-100-python"),
        archives: &[Archive {
            file: "cifar-100-python.tar.gz",
            urls: &[
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",
            ],
            size: None,
            sums: &[Md5("eb9058c3a382ffc7106e4002c42a8d85")],
        }],
        most_bytes: CIFAR_BYTES,
        most_files: CIFAR_FILES,
        terms: CIFAR_TERMS,
    },
    DataSet {
        name: "cub-200-2011",
        folder: "CUB_200_2011",
        top: Some("CUB_200_2011"),
        archives: &[Archive {
            file: "CUB_200_2011.tgz",
            urls: &["https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"],
            size: Some(1_150_585_339),
            sums: &[
                Md5("97eceeb196236b17998738112f37df78"),
                Sha256("0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081"),
            ],
        }],
        most_bytes: CUB_BYTES,
        most_files: CUB_FILES,
        terms: CUB_TERMS,
    },
    DataSet {
        name: "cub-200-2010",
        folder: "CUB_200_2010",
        top: None,
        archives: &[
            Archive {
                file: "lists.tgz",
                urls: &[
                    "http://www.vision.caltech.edu/visipedia-data/CUB-200/lists.tgz",
                    "https://drive.usercontent.google.com/download?id=1vZuZPqha0JjmwkdaS_XtYryE3Jf5Q1AC&export=download&confirm=t",
                ],
                size: Some(201_844),
                sums: &[Sha256("aeacbd5e3539ae84ea726e8a266a9a119c18f055cd80f3836d5eb4500b005428")],
            },
            Archive {
                file: "images.tgz",
                urls: &[
                    "http://www.vision.caltech.edu/visipedia-data/CUB-200/images.tgz",
                    "https://drive.usercontent.google.com/download?id=1GDr1OkoXdhaXWGA8S3MAq3a522Tak-nx&export=download&confirm=t",
                ],
                size: Some(679_421_896),
                sums: &[
                    Md5("2bbe304ef1aa3ddb6094aa8f53487cf2"),
                    Sha256("2a6d2246bbb9778ca03aa94e2e683ccb4f8821a36b7f235c0822e659d60a803e"),
                ],
            },
        ],
        most_bytes: CUB_BYTES,
        most_files: CUB_FILES,
        terms: CUB_TERMS,
    },
];

impl DataSet<'static> {
    /// The row of a name.
    ///
    /// # Errors
    /// No such name; the error lists the nearest.
    pub fn named(name: &str) -> Result<&'static Self> {
        DATA_SETS.iter().find(|set| set.name == name).ok_or_else(|| {
            let nearest = most_alike(name, DATA_SETS.iter().map(|set| set.name));
            FetchError::UnknownName { kind: "data set", name: name.to_owned(), nearest }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        let hex = |text: &str, len| text.len() == len && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
        for set in DATA_SETS {
            assert_eq!(DataSet::named(set.name).unwrap(), set);
            assert!(DATA_SETS.iter().filter(|other| other.folder == set.folder).count() == 1);
            for archive in set.archives {
                assert!(!archive.urls.is_empty() && !archive.sums.is_empty(), "{}", archive.file);
                for sum in archive.sums {
                    assert!(match sum {
                        Md5(md5) => hex(md5, 32),
                        Sha256(sha256) => hex(sha256, 64),
                    });
                }
            }
        }
    }

    #[test]
    fn wrong_names_suggest_right_ones() {
        for (name, expected) in [("cifar100", "cifar-100"), ("cub-200", "cub-200-2011"), ("CIFAR-10", "cifar-10")] {
            match DataSet::named(name) {
                Err(FetchError::UnknownName { nearest, .. }) => {
                    assert!(nearest.contains(&expected.to_owned()), "{name}")
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
