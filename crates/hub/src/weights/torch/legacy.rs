//! The form before PyTorch 1.6, and of `_use_new_zipfile_serialization=False`: four pickles (a magic number, a version,
//! what machine wrote it, the object), a fifth with the keys of the storages, and then each storage's length and numbers.

use std::collections::BTreeMap;

use taper_data::pickle::{Pickle, Value};

use super::read_tensors;
use super::state_dict::{LIMITS, StateDict, storage_of, text};
use crate::weights::file::Contents;
use crate::weights::raw::NumberType;

/// 0x1950a86a20f9469cfc6c, as protocols 2 to 5 write an integer of ten bytes (`torch/serialization.py`).
const MAGIC: [u8; 13] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// Version of the form, the only one there has been.
const VERSION: i64 = 1001;

/// Reads the tensors of a file.
pub(in crate::weights) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let mut reader = Reader { bytes, at: 0 };
    reader.magic()?;
    reader.version()?;
    reader.machine()?;
    let object = reader.pickle("the object")?;
    let state_dict = StateDict::of(&object)?;
    let types = number_types(&object);
    let storages = reader.storages(&types)?;
    read_tensors(&state_dict, bytes.len(), |key| {
        storages.get(key).copied().ok_or_else(|| format!("storage {key} is missing"))
    })
}

/// The number type of every storage that the object refers to; those that cannot be read have none.
fn number_types(object: &Pickle<'_>) -> BTreeMap<String, NumberType> {
    let storages = object.values().iter().filter_map(|value| match value {
        Value::Persistent(id) => storage_of(object, *id).ok(),
        _ => None,
    });
    storages.collect()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next pickle; bytes in its messages count from the start of the file.
    fn pickle(&mut self, what: &str) -> Result<Pickle<'a>, String> {
        let pickle = Pickle::parse(self.rest(), LIMITS)
            .map_err(|reason| format!("{what}: {reason} of the pickle at byte {} of the file", self.at))?;
        self.at += pickle.num_bytes();
        Ok(pickle)
    }

    fn magic(&mut self) -> Result<(), String> {
        let start = self.at;
        let length = self.pickle("the magic number")?.num_bytes();
        let pickle = &self.bytes[start..start + length];
        // A frame, which protocol 4 may put in between, does not matter.
        if pickle.ends_with(&MAGIC) { Ok(()) } else { Err("a pickle, but not one of torch.save".to_owned()) }
    }

    fn version(&mut self) -> Result<(), String> {
        let pickle = self.pickle("the version")?;
        match pickle.value(pickle.root()) {
            Value::Int(VERSION) => Ok(()),
            other => Err(format!("version {other:?} of torch.save, only {VERSION} is read")),
        }
    }

    fn machine(&mut self) -> Result<(), String> {
        let pickle = self.pickle("the machine")?;
        let Value::Dict(pairs) = pickle.value(pickle.root()) else { return Err("the machine is no dict".to_owned()) };
        let little = pairs.iter().find(|(key, _)| text(&pickle, *key) == Some("little_endian"));
        match little.map(|(_, value)| pickle.value(*value)) {
            Some(Value::Bool(true)) => Ok(()),
            _ => Err("its numbers are big-endian, which is not read".to_owned()),
        }
    }

    /// The bytes of each storage, in the order of the keys.
    fn storages(&mut self, types: &BTreeMap<String, NumberType>) -> Result<BTreeMap<String, &'a [u8]>, String> {
        let keys = self.pickle("the keys of the storages")?;
        let mut storages = BTreeMap::new();
        for id in keys.items(keys.root()) {
            let key = text(&keys, *id).ok_or("a key of a storage is no text")?;
            let number = types.get(key).ok_or_else(|| format!("the type of storage {key} is unknown"))?;
            let bytes = self.storage(*number).ok_or_else(|| format!("storage {key} is truncated"))?;
            storages.insert(key.to_owned(), bytes);
        }
        Ok(storages)
    }

    fn storage(&mut self, number: NumberType) -> Option<&'a [u8]> {
        let (length, rest) = self.rest().split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?.checked_mul(number.size())?;
        let bytes = rest.get(..length)?;
        self.at += 8 + length;
        Some(bytes)
    }
}
