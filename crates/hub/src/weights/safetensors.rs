//! Weights in safetensors files.
//!
//! The library checks the header's length, that the tensors lie end to end from the start of the data to the end of
//! the file, and that shapes and types give the lengths. It does not see a name that comes twice (the last one wins),
//! nor bound the number of axes.

use std::collections::HashSet;

use ::safetensors::SafeTensors;
use ::safetensors::tensor::{Dtype, SafeTensorError};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::file::Contents;
use super::raw::{NumberType, Place};

/// Reads the tensors and the metadata.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let (header_length, header) = SafeTensors::read_metadata(bytes).map_err(reason)?;
    require_distinct(&bytes[8..8 + header_length])?;
    let file = SafeTensors::deserialize(bytes).map_err(reason)?;
    let mut contents = Contents {
        metadata: header.metadata().clone().unwrap_or_default().into_iter().collect(),
        ..Default::default()
    };
    for (name, view) in file.iter() {
        let named = |reason: String| format!("tensor {name:?}: {reason}");
        let number = number_type(view.dtype()).map_err(named)?;
        let tensor = Place::dense(number, view.shape().to_vec()).read(view.data()).map_err(named)?;
        contents.add(name, number, tensor)?;
    }
    Ok(contents)
}

fn number_type(dtype: Dtype) -> Result<NumberType, String> {
    Ok(match dtype {
        Dtype::F32 => NumberType::F32,
        Dtype::F64 => NumberType::F64,
        Dtype::F16 => NumberType::F16,
        Dtype::BF16 => NumberType::BF16,
        Dtype::I64 => NumberType::I64,
        Dtype::I32 => NumberType::I32,
        Dtype::I16 => NumberType::I16,
        Dtype::U8 | Dtype::BOOL => NumberType::U8,
        other => return Err(format!("numbers of the type {other:?} are not read; convert them to float32")),
    })
}

/// The library's reasons, in words for who only has the file.
fn reason(error: SafeTensorError) -> String {
    let reason = match &error {
        SafeTensorError::HeaderTooSmall => "it is shorter than a header".to_owned(),
        SafeTensorError::HeaderTooLarge => "its header claims more than 100 MB".to_owned(),
        SafeTensorError::InvalidHeaderLength => "its header claims to be longer than the file".to_owned(),
        SafeTensorError::InvalidHeader(_) => "its header is not UTF-8".to_owned(),
        SafeTensorError::InvalidHeaderDeserialization(error) => format!("its header cannot be understood: {error}"),
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor {name:?} overlaps another, or leaves a gap before it")
        }
        SafeTensorError::TensorInvalidInfo => "a tensor's shape and type do not give its length".to_owned(),
        SafeTensorError::ValidationOverflow => "a tensor's shape overflows".to_owned(),
        SafeTensorError::MetadataIncompleteBuffer => "the file is truncated, or longer than its header says".to_owned(),
        other => other.to_string(),
    };
    format!("not a safetensors file, or a damaged one: {reason}")
}

/// Finds a key that comes twice, of the header or of its metadata.
fn require_distinct(header: &[u8]) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_slice(header);
    json.deserialize_map(Distinct { inside: Inside::Header }).map_err(|error| error.to_string())
}

#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Header,
    Metadata,
}

struct Distinct {
    inside: Inside,
}

impl<'de> Visitor<'de> for Distinct {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if self.inside == Inside::Header && key == "__metadata__" {
                map.next_value_seed(Distinct { inside: Inside::Metadata })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            if let Some(key) = keys.replace(key) {
                return Err(serde::de::Error::custom(format!("its header has the name {key:?} twice")));
            }
        }
        Ok(())
    }

    /// Metadata that is `null` is none.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Distinct {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}
