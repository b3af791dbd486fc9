//! The `.tar.gz` as downloaded, read in passing and never unpacked to disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::{Collector, Form, HashingReader, read_error};
use crate::{DataError, DataSpec, FileDigest, OpenedData, Result};

/// Most bytes that are decompressed; the official archives have 186 MB at most.
const MAX_UNPACKED_BYTES: u64 = 2 << 30;
/// Longest header extension (for long names) that is read.
const MAX_EXTENSION_BYTES: u64 = 1 << 16;

/// Opens an archive of any of the four forms; `Ok(None)` if there is no file of them in it.
pub(crate) fn open_archive(path: &Path, spec: &DataSpec) -> Result<Option<OpenedData>> {
    let io_error = |source| DataError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io_error)?;
    let unpacked = Bounded { inner: GzDecoder::new(HashingReader::new(file)), left: MAX_UNPACKED_BYTES };
    let mut archive = Archive::new(unpacked);
    let mut collector: Option<Collector<'_>> = None;
    let mut long_name = None;
    // Raw, because the extensions of the plain iterator are of a length that the archive chooses.
    for entry in archive.entries().map_err(|error| read_error(path, error))?.raw(true) {
        let mut entry = entry.map_err(|error| read_error(path, error))?;
        if let Some(name) = extension_name(path, &mut entry)? {
            long_name = name;
            continue;
        }
        let entry_name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let Some(name) = checked_name(path, &entry_name, entry.header().entry_type())? else { continue };
        let Some(form) = Form::of_file(&name) else { continue };
        let mut current = collector.take().map_or_else(|| Collector::new(form, spec), Ok)?;
        let num_bytes = entry.size();
        current.read(&name, &inside(path, &entry_name), num_bytes, &mut entry)?;
        collector = Some(current);
    }
    let digest = digest_of_rest(path, archive.into_inner())?;
    collector.map(|collector| collector.finish(path, vec![digest])).transpose()
}

/// The path of an entry for errors: the archive, then the entry.
fn inside(archive: &Path, entry_name: &[u8]) -> PathBuf {
    archive.join(String::from_utf8_lossy(entry_name).as_ref())
}

/// Reads an entry that only says something about the next one: `Some(its name, if it says that)`.
#[expect(clippy::option_option, reason = "an extension may be there and say nothing about the name")]
fn extension_name(archive: &Path, entry: &mut Entry<'_, impl Read>) -> Result<Option<Option<Vec<u8>>>> {
    let entry_type = entry.header().entry_type();
    let is_extension = matches!(
        entry_type,
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
    );
    if !is_extension {
        return Ok(None);
    }
    if entry.size() > MAX_EXTENSION_BYTES {
        let reason = format!("a header extension of {} bytes", entry.size());
        return Err(DataError::malformed(archive, reason));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| read_error(archive, error))?;
    Ok(Some(match entry_type {
        EntryType::GNULongName => Some(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()),
        EntryType::XHeader => PaxExtensions::new(&bytes)
            .filter_map(|extension| extension.ok())
            .find(|extension| extension.key_bytes() == b"path")
            .map(|extension| extension.value_bytes().to_vec()),
        _ => None,
    }))
}

/// The file name of an entry that may be one of a data set: a file in the archive's root or one folder below. An entry
/// that could reach outside of the folder it is unpacked to is refused, whoever unpacks it.
fn checked_name(archive: &Path, entry_name: &[u8], entry_type: EntryType) -> Result<Option<String>> {
    let entry = String::from_utf8_lossy(entry_name);
    let refuse =
        |reason| Err(DataError::UnsafeEntry { archive: archive.to_path_buf(), entry: entry.to_string(), reason });
    let components: Vec<&str> = entry.split(['/', '\\']).collect();
    if components[0].is_empty() || components[0].ends_with(':') {
        return refuse("has an absolute path");
    }
    if components.contains(&"..") {
        return refuse("has a path that leaves its folder");
    }
    match entry_type {
        EntryType::Regular | EntryType::Continuous => {}
        EntryType::Directory => return Ok(None),
        EntryType::Link | EntryType::Symlink => return refuse("is a link"),
        _ => return refuse("is neither a file nor a folder"),
    }
    let names: Vec<&str> = components.into_iter().filter(|name| !name.is_empty() && *name != ".").collect();
    Ok(match names[..] {
        [name] | [_, name] => Some(name.to_string()),
        _ => None,
    })
}

/// Reads the archive to its end, which checks the compressed stream's own sum, and gives the digest of the file.
fn digest_of_rest(path: &Path, mut unpacked: Bounded<GzDecoder<HashingReader<File>>>) -> Result<FileDigest> {
    io::copy(&mut unpacked, &mut io::sink()).map_err(|error| read_error(path, error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    unpacked.inner.into_inner().finish(name).map_err(|error| read_error(path, error))
}

/// Fails after a number of bytes: a small archive can decompress to any length.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let num_bytes = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(num_bytes as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("it unpacks to more than {MAX_UNPACKED_BYTES} bytes"))
        })?;
        Ok(num_bytes)
    }
}
