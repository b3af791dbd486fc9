//! Tar archives, unpacked with suspicion.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Entry, EntryType};

use crate::download::{FetchError, Result};

/// Headers and padding of the entries may take this much beside their bytes.
const BYTES_BESIDE: u64 = 256 << 20;

/// Unpacks archives into one folder, within bounds that hold for all of them together.
///
/// Files and folders are made, with the usual permissions; links, devices and paths that lead out are errors. The files
/// that macOS puts beside others (`._name`) hold nothing of the data set and are passed over.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    folder: &'a Path,
    /// A folder of the archives whose content is put into `folder` itself.
    top: Option<&'a str>,
    bytes_left: u64,
    files_left: u64,
}

/// What went wrong with one entry.
enum Trouble {
    /// The archive is damaged or hostile.
    Archive(String),
    /// The file could not be written.
    Write(PathBuf, std::io::Error),
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(folder: &'a Path, top: Option<&'a str>, most_bytes: u64, most_files: u64) -> Self {
        Self { folder, top, bytes_left: most_bytes, files_left: most_files }
    }

    /// Unpacks one `.tar.gz`.
    pub(crate) fn unpack(&mut self, path: &Path) -> Result<()> {
        let malformed = |reason: String| FetchError::Archive { path: path.to_owned(), reason };
        let file = File::open(path).map_err(|error| FetchError::io("read", path, error))?;
        let plain = MultiGzDecoder::new(BufReader::new(file)).take(self.bytes_left.saturating_add(BYTES_BESIDE));
        let mut archive = tar::Archive::new(plain);
        let mut num_entries = 0;
        for entry in archive.entries().map_err(|error| malformed(error.to_string()))? {
            let mut entry = entry.map_err(|error| malformed(format!("entry {num_entries}: {error}")))?;
            num_entries += 1;
            match self.unpack_entry(&mut entry) {
                Ok(()) => {}
                Err(Trouble::Archive(reason)) => return Err(malformed(reason)),
                Err(Trouble::Write(path, error)) => return Err(FetchError::io("write", path, error)),
            }
        }
        if num_entries == 0 {
            return Err(malformed("it holds nothing".to_owned()));
        }
        // The checksum of the compression comes last, after all that the entries need.
        let mut rest = archive.into_inner();
        std::io::copy(&mut rest, &mut std::io::sink()).map_err(|error| malformed(error.to_string()))?;
        Ok(())
    }

    fn unpack_entry(&mut self, entry: &mut Entry<'_, impl Read>) -> std::result::Result<(), Trouble> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let named = entry.path().map_err(|error| Trouble::Archive(error.to_string()))?.into_owned();
        let shown = named.display();
        let Some(inside) = self.place(&named) else {
            return Err(Trouble::Archive(format!("the path {shown} leads out of the archive")));
        };
        let is_beside = inside.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"._"));
        if is_beside || inside.as_os_str().is_empty() && kind == EntryType::Directory {
            return Ok(());
        }
        let Some(files_left) = self.files_left.checked_sub(1) else {
            return Err(Trouble::Archive("it holds more files than the data set has".to_owned()));
        };
        self.files_left = files_left;
        let target = self.folder.join(&inside);
        match kind {
            EntryType::Directory => std::fs::create_dir_all(&target).map_err(|error| Trouble::Write(target, error)),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.write_file(entry, target),
            EntryType::Symlink | EntryType::Link => {
                Err(Trouble::Archive(format!("{shown} is a link, which may lead anywhere")))
            }
            _ => Err(Trouble::Archive(format!("{shown} is neither a file nor a folder"))),
        }
    }

    /// The path below the folder; `None` if it would lie elsewhere.
    fn place(&self, named: &Path) -> Option<PathBuf> {
        let mut inside = PathBuf::new();
        for component in named.components() {
            match component {
                Component::Normal(name) => inside.push(name),
                Component::CurDir => {}
                _ => return None,
            }
        }
        match self.top.and_then(|top| inside.strip_prefix(top).ok().map(Path::to_path_buf)) {
            Some(below) => Some(below),
            None => Some(inside),
        }
    }

    fn write_file(&mut self, entry: &mut Entry<'_, impl Read>, target: PathBuf) -> std::result::Result<(), Trouble> {
        let size = entry.size();
        let Some(bytes_left) = self.bytes_left.checked_sub(size) else {
            return Err(Trouble::Archive("it holds more bytes than the data set has".to_owned()));
        };
        self.bytes_left = bytes_left;
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Trouble::Write(folder.to_owned(), error))?;
        }
        let file = match OpenOptions::new().write(true).create_new(true).open(&target) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Trouble::Archive(format!("{} is in it twice", target.display())));
            }
            opened => opened.map_err(|error| Trouble::Write(target.clone(), error))?,
        };
        let copied = copy(entry, &file, &target)?;
        if copied != size {
            return Err(Trouble::Archive(format!("{} has {copied} bytes of {size}", target.display())));
        }
        Ok(())
    }
}

/// Copies what is left of `from`; tells a damaged archive from a disk that does not take the bytes.
fn copy(from: &mut impl Read, file: &File, target: &Path) -> std::result::Result<u64, Trouble> {
    let mut to = BufWriter::new(file);
    let mut buffer = vec![0; 1 << 16];
    let mut copied = 0;
    loop {
        let len = from.read(&mut buffer).map_err(|error| Trouble::Archive(format!("{}: {error}", target.display())))?;
        if len == 0 {
            break;
        }
        std::io::Write::write_all(&mut to, &buffer[..len]).map_err(|error| Trouble::Write(target.to_owned(), error))?;
        copied += len as u64;
    }
    std::io::Write::flush(&mut to).map_err(|error| Trouble::Write(target.to_owned(), error))?;
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// An entry as an archive has it, whatever its path: type, path, link target, bytes.
    type Item<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

    fn tar_gz(items: &[Item<'_>]) -> Vec<u8> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        for (kind, path, link, bytes) in items {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            // Set as bytes: the crate's own functions refuse hostile paths.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
            header.set_mode(0o777);
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            gz.write_all(header.as_bytes()).unwrap();
            gz.write_all(bytes).unwrap();
            gz.write_all(&vec![0; bytes.len().next_multiple_of(512) - bytes.len()]).unwrap();
        }
        gz.write_all(&[0; 1024]).unwrap();
        gz.finish().unwrap()
    }

    fn unpack(bytes: &[u8], most_bytes: u64, most_files: u64) -> (tempfile::TempDir, Result<()>) {
        let root = tempfile::tempdir().unwrap();
        let (archive, folder) = (root.path().join("a.tgz"), root.path().join("out"));
        std::fs::write(&archive, bytes).unwrap();
        std::fs::create_dir(&folder).unwrap();
        let done = Unpacker::new(&folder, Some("top"), most_bytes, most_files).unpack(&archive);
        (root, done)
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn files_and_folders_are_made() {
        let items: [Item<'_>; 6] = [
            (
                EntryType::XGlobalHeader,
                "pax_global_header",
                "",
                b"52 comment=0123456789012345678901234567890123456789\n",
            ),
            (EntryType::Directory, "top/", "", b""),
            (FILE, "./top/a/b.txt", "", b"inside"),
            (FILE, "top/a/._b.txt", "", b"beside"),
            (FILE, "other.txt", "", b"other"),
            (EntryType::Directory, "top/empty/", "", b""),
        ];
        let (root, done) = unpack(&tar_gz(&items), 11, 4);
        done.unwrap();
        let read = |path: &str| std::fs::read(root.path().join("out").join(path)).unwrap();
        assert_eq!((read("a/b.txt"), read("other.txt")), (b"inside".to_vec(), b"other".to_vec()));
        assert!(root.path().join("out/empty").is_dir());
        assert!(!root.path().join("out/a/._b.txt").exists());
    }

    #[test]
    fn hostile_archives_are_refused() {
        let file: Item<'_> = (FILE, "a.txt", "", b"0123456789");
        let cases: [(&[Item<'_>], u64, u64, &str); 10] = [
            (&[(FILE, "../evil", "", b"x")], 100, 9, "leads out"),
            (&[(FILE, "a/../../evil", "", b"x")], 100, 9, "leads out"),
            (&[(FILE, "/tmp/taper-evil", "", b"x")], 100, 9, "leads out"),
            (&[(EntryType::Directory, "../evil/", "", b"")], 100, 9, "leads out"),
            (&[(EntryType::Symlink, "link", "/etc", b"")], 100, 9, "link"),
            (&[(EntryType::Link, "link", "a.txt", b"")], 100, 9, "link"),
            (&[(EntryType::Fifo, "pipe", "", b"")], 100, 9, "neither a file nor a folder"),
            (&[file], 9, 9, "more bytes"),
            (&[file, (FILE, "b.txt", "", b"")], 100, 1, "more files"),
            (&[file, file], 100, 9, "twice"),
        ];
        for (items, most_bytes, most_files, expected) in cases {
            let (root, done) = unpack(&tar_gz(items), most_bytes, most_files);
            match done {
                Err(FetchError::Archive { reason, .. }) => assert!(reason.contains(expected), "{items:?}: {reason}"),
                other => panic!("{items:?}: {other:?}"),
            }
            assert!(!root.path().join("evil").exists() && !Path::new("/tmp/taper-evil").exists());
        }
    }

    #[test]
    fn damaged_archives_are_refused() {
        let noise: Vec<u8> = (0..40_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let whole = tar_gz(&[(FILE, "a.bin", "", &noise)]);
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x10;
        for bytes in [&whole[..whole.len() / 2], &flipped, b"<html>", b"", &tar_gz(&[])] {
            let (_root, done) = unpack(bytes, 1 << 20, 9);
            assert!(matches!(done, Err(FetchError::Archive { .. })), "{done:?}");
        }
    }
}
