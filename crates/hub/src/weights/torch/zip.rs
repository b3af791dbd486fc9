//! The form of PyTorch 1.6 and later: a zip archive with `data.pkl`, and a file for each storage under `data/`.
//!
//! PyTorch stores without compression, and so nothing else is read: an archive cannot unpack to more than its size.

use std::io::{Cursor, Read};

use taper_data::pickle::Pickle;
use zip::{CompressionMethod, ZipArchive};

use super::read_tensors;
use super::state_dict::{LIMITS, StateDict};
use crate::weights::file::Contents;

const PICKLE: &str = "data.pkl";

/// Reads the tensors of an archive.
pub(in crate::weights) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let mut archive = Archive::open(bytes)?;
    // Archives from before PyTorch 2.1 do not say, and are little-endian.
    if archive.has("byteorder") && archive.read("byteorder")? != b"little" {
        return Err("its numbers are big-endian, which is not read".to_owned());
    }
    let pickle = archive.read(PICKLE)?;
    let in_pickle = |reason: String| format!("{PICKLE}: {reason}");
    let state_dict = StateDict::of(&Pickle::parse(&pickle, LIMITS).map_err(in_pickle)?).map_err(in_pickle)?;
    read_tensors(&state_dict, bytes.len(), |key| archive.read(&format!("data/{key}")))
}

struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// The folder that everything is in; PyTorch names it after the file.
    folder: String,
    num_bytes: usize,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| format!("a damaged zip archive: {error}"))?;
        let names: Vec<_> = zip.file_names().filter_map(Result::ok).map(|name| name.into_owned()).collect();
        if names.iter().any(|name| name.ends_with("/constants.pkl")) {
            return Err("it is TorchScript, weights inside a program; save model.state_dict() instead".to_owned());
        }
        let mut folders = names.iter().filter_map(|name| name.strip_suffix(PICKLE)).filter(|folder| {
            let inside = folder.strip_suffix('/');
            inside.is_some_and(|folder| !folder.is_empty() && !folder.contains('/'))
        });
        let (folder, other) = (folders.next(), folders.next());
        let folder = folder.ok_or_else(|| format!("a zip archive without {PICKLE}, so not one of torch.save"))?;
        if other.is_some() {
            return Err(format!("a zip archive with more than one {PICKLE}"));
        }
        Ok(Self { folder: folder.to_owned(), zip, num_bytes: bytes.len() })
    }

    fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{}{name}", self.folder)).is_some()
    }

    /// A whole file of the archive, its checksum verified.
    fn read(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{name} in the archive: {error}");
        let mut file = self.zip.by_name(&format!("{}{name}", self.folder)).map_err(|error| failed(&error))?;
        if file.compression() != CompressionMethod::Stored {
            return Err(failed(&"it is compressed, which torch.save does not do"));
        }
        let length = usize::try_from(file.size()).ok().filter(|length| *length <= self.num_bytes);
        let length = length.ok_or_else(|| failed(&"it claims to be longer than the archive"))?;
        let mut bytes = Vec::with_capacity(length);
        file.read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        Ok(bytes)
    }
}
