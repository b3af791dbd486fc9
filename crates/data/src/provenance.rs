//! Where data came from, well enough to know them again.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use md5::Md5;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The origin of a data set, for a run's `provenance.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataProvenance {
    /// The location as it was given.
    pub source: String,
    /// In which form the data were found.
    pub kind: DataKind,
    /// The files that were read to open the set: archives, records, lists. Empty for the built-in set and image folders.
    pub files: Vec<FileDigest>,
    /// Whether the files are the publisher's, byte for byte.
    pub official: Recognised,
    /// One SHA-256 over everything that `covers` says.
    pub sha256: String,
    /// What `sha256` was computed from.
    pub covers: Covers,
    /// Files in an image folder that were left out: hidden, no images by their extension, or in no class folder.
    pub num_ignored_files: usize,
}

/// The forms that [`open`](crate::open) reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataKind {
    /// The built-in set.
    Glyphs,
    /// CIFAR-10 as records.
    #[serde(rename = "cifar-10-binary")]
    Cifar10Binary,
    /// CIFAR-10 as pickles.
    #[serde(rename = "cifar-10-python")]
    Cifar10Python,
    /// CIFAR-100 as records.
    #[serde(rename = "cifar-100-binary")]
    Cifar100Binary,
    /// CIFAR-100 as pickles.
    #[serde(rename = "cifar-100-python")]
    Cifar100Python,
    /// Image files in folders named by class.
    ImageFolder,
    /// CUB-200 as released in 2010.
    #[serde(rename = "cub-200-2010")]
    Cub2002010,
    /// CUB-200 as released in 2011.
    #[serde(rename = "cub-200-2011")]
    Cub2002011,
}

/// What a SHA-256 was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Covers {
    /// Name and SHA-256 of every file in `files`: all bytes that were read.
    Contents,
    /// Path and size of every image file, and SHA-256 of every list in `files`. The images themselves are read when they
    /// are used, not before.
    Listing,
    /// Name and revision of the code that draws the set.
    Generator,
}

/// One file, and how to know it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDigest {
    /// File name without its folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// MD5 in hexadecimal; it is what the publishers give.
    pub md5: String,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Whether files are the publisher's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Recognised {
    /// Byte for byte.
    Official {
        /// What the publisher calls it.
        name: String,
    },
    /// Of the right structure, with other bytes.
    Unofficial,
}

/// MD5 sums of the archives, as <https://www.cs.toronto.edu/~kriz/cifar.html> gives them.
const OFFICIAL_ARCHIVES: [(&str, &str); 4] = [
    ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    ("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    ("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
];

/// MD5 sums of the files that `cifar-10-python.tar.gz` holds, as torchvision checks them (`datasets/cifar.py`).
const OFFICIAL_CIFAR_10_PYTHON: [(&str, &str); 7] = [
    ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
    ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
    ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
    ("data_batch_4", "634d18415352ddfa80567beed471001a"),
    ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
    ("test_batch", "40351d587109b95175f43aff81a1287e"),
    ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
];

/// The same for `cifar-100-python.tar.gz`.
const OFFICIAL_CIFAR_100_PYTHON: [(&str, &str); 3] = [
    ("train", "16019d7e3df5f24257cddd939b257f8d"),
    ("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ("meta", "7973b15100ade9c7d40fb424638fde48"),
];

impl Recognised {
    /// Compares with the known sums. An archive is known by its bytes whatever its name; loose files need all of a set.
    pub(crate) fn from_files(files: &[FileDigest]) -> Self {
        if let [file] = files
            && let Some((name, _)) = OFFICIAL_ARCHIVES.iter().find(|(_, md5)| *md5 == file.md5)
        {
            return Self::Official { name: (*name).to_string() };
        }
        let all = |known: &[(&str, &str)]| {
            files.len() == known.len()
                && known.iter().all(|(name, md5)| files.iter().any(|file| file.name == *name && file.md5 == *md5))
        };
        let name = match () {
            () if all(&OFFICIAL_CIFAR_10_PYTHON) => "cifar-10-batches-py",
            () if all(&OFFICIAL_CIFAR_100_PYTHON) => "cifar-100-python",
            () => return Self::Unofficial,
        };
        Self::Official { name: name.to_string() }
    }
}

/// Bytes that are hashed at a time. A file with more of them is hashed beside its reading, for MD5 takes longer.
const BLOCK_BYTES: usize = 1 << 20;

/// Takes all bytes of a file in passing.
#[derive(Default)]
pub(crate) struct FileHasher {
    bytes: u64,
    /// What the hashes have not seen.
    block: Vec<u8>,
    md5: Hash<Md5>,
    sha256: Hash<Sha256>,
}

impl FileHasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.block.extend_from_slice(bytes);
        if self.block.len() >= BLOCK_BYTES {
            let block = Arc::new(std::mem::take(&mut self.block));
            self.md5.update_beside(&block);
            self.sha256.update_beside(&block);
            self.block.reserve(BLOCK_BYTES);
        }
    }

    pub(crate) fn finish(self, name: String) -> FileDigest {
        let Self { bytes, block, md5, sha256 } = self;
        FileDigest { name, bytes, md5: md5.finish(&block), sha256: sha256.finish(&block) }
    }
}

/// A hash that is worked out here, or on a thread of its own.
#[derive(Default)]
enum Hash<D> {
    #[default]
    OfNothing,
    Here(D),
    Beside {
        blocks: SyncSender<Arc<Vec<u8>>>,
        thread: JoinHandle<D>,
    },
}

impl<D: Digest + Default + Send + 'static> Hash<D> {
    /// Begins on a thread of its own; here, where none is to be had.
    fn begin() -> Self {
        /// Blocks that wait for the thread before the reader does.
        const WAITING: usize = 8;

        let (sender, receiver) = sync_channel::<Arc<Vec<u8>>>(WAITING);
        let hash = move || {
            let mut hash = D::default();
            receiver.iter().for_each(|block| hash.update(&**block));
            hash
        };
        match std::thread::Builder::new().name("hash".to_owned()).spawn(hash) {
            Ok(thread) => Self::Beside { blocks: sender, thread },
            Err(_) => Self::Here(D::default()),
        }
    }

    fn update_beside(&mut self, block: &Arc<Vec<u8>>) {
        if matches!(self, Self::OfNothing) {
            *self = Self::begin();
        }
        match self {
            Self::OfNothing => {}
            Self::Here(hash) => hash.update(&**block),
            // The thread takes blocks until the sender is gone.
            Self::Beside { blocks, .. } => drop(blocks.send(block.clone())),
        }
    }

    /// The digest in hexadecimal, with the last bytes.
    fn finish(self, rest: &[u8]) -> String {
        let mut hash = match self {
            Self::OfNothing => D::default(),
            Self::Here(hash) => hash,
            Self::Beside { blocks, thread } => {
                drop(blocks);
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
        };
        hash.update(rest);
        hex(&hash.finalize())
    }
}

/// SHA-256 in hexadecimal of lines, each ended by a newline.
pub(crate) fn sha256_of_lines(lines: impl IntoIterator<Item = String>) -> String {
    let mut sha256 = Sha256::new();
    for line in lines {
        sha256.update(line.as_bytes());
        sha256.update(b"\n");
    }
    hex(&sha256.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_standard_ones() {
        let mut hasher = FileHasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        let digest = hasher.finish("abc".to_string());
        assert_eq!((digest.bytes, digest.md5.as_str()), (3, "900150983cd24fb0d6963f7d28e17f72"));
        assert_eq!(digest.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    /// Several blocks, and a part of one; against the same in one go.
    #[test]
    fn large_files_are_hashed_beside_their_reading() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 12_345).map(|index| (index * 31 / 7) as u8).collect();
        let mut hasher = FileHasher::default();
        bytes.chunks(70_001).for_each(|part| hasher.update(part));
        let digest = hasher.finish("large".to_string());
        assert_eq!(digest.bytes, bytes.len() as u64);
        assert_eq!(digest.md5, hex(&Md5::digest(&bytes)));
        assert_eq!(digest.sha256, hex(&Sha256::digest(&bytes)));
    }

    fn file(name: &str, md5: &str) -> FileDigest {
        FileDigest { name: name.to_string(), bytes: 1, md5: md5.to_string(), sha256: String::new() }
    }

    #[test]
    fn known_sums_are_recognised() {
        let official = |name: &str| Recognised::Official { name: name.to_string() };
        let (name, md5) = OFFICIAL_ARCHIVES[1];
        assert_eq!(Recognised::from_files(&[file("renamed.tgz", md5)]), official(name));
        assert_eq!(Recognised::from_files(&[file(name, "0")]), Recognised::Unofficial);
        let mut loose = OFFICIAL_CIFAR_100_PYTHON.map(|(name, md5)| file(name, md5)).to_vec();
        assert_eq!(Recognised::from_files(&loose), official("cifar-100-python"));
        loose.pop();
        assert_eq!(Recognised::from_files(&loose), Recognised::Unofficial);
    }
}
