//! A weights file as named tensors, whoever wrote it.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Storage, Tensor};

use super::WeightsError;
use super::raw::NumberType;
use super::{safetensors, torch};

/// The forms in which weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileForm {
    /// safetensors.
    Safetensors,
    /// `torch.save` since PyTorch 1.6: a zip archive.
    TorchZip,
    /// `torch.save` before: pickles, then numbers.
    TorchLegacy,
}

impl std::fmt::Display for FileForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::TorchZip => "torch.save (zip)",
            Self::TorchLegacy => "torch.save (legacy)",
        })
    }
}

/// The tensors of a file under the names it gives them.
#[derive(Debug)]
pub struct WeightsFile {
    /// Tensors by name, on the CPU: f32 where the file has fractions of any precision, i64 where it has integers.
    pub tensors: BTreeMap<String, Tensor>,
    /// The header's metadata; only safetensors have any.
    pub metadata: BTreeMap<String, String>,
    /// How it is stored.
    pub form: FileForm,
    /// How many tensors are stored as each type of number, by its name.
    pub stored_types: BTreeMap<&'static str, usize>,
}

/// What a reader of one form finds.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) tensors: BTreeMap<String, Tensor>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) stored_types: BTreeMap<&'static str, usize>,
}

impl Contents {
    /// Adds a tensor of a name that must be new.
    pub(super) fn add(&mut self, name: &str, number: NumberType, tensor: Tensor) -> Result<(), String> {
        if self.tensors.insert(name.to_owned(), tensor).is_some() {
            return Err(format!("two tensors have the name {name:?}"));
        }
        *self.stored_types.entry(number.name()).or_default() += 1;
        Ok(())
    }
}

impl WeightsFile {
    /// Reads a file of any form; the form is known by the content. Runs nothing that the file holds, and takes memory
    /// in proportion to the file's length at most.
    ///
    /// A prefix `module.` that all names share is taken off, and a state dict is found under `state_dict` or `model`.
    ///
    /// # Errors
    /// A file that cannot be read, is not weights, is damaged, holds anything but tensors and plain values, or holds
    /// NaN or infinite values.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let bytes = std::fs::read(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes, path)
    }

    /// Reads the bytes of a file. `path` is for messages.
    ///
    /// # Errors
    /// Those of [`WeightsFile::read`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, WeightsError> {
        let malformed = |reason: String| WeightsError::malformed(path, reason);
        let form = recognise(bytes).map_err(malformed)?;
        let contents = match form {
            FileForm::Safetensors => safetensors::read(bytes),
            FileForm::TorchZip => torch::read_zip(bytes),
            FileForm::TorchLegacy => torch::read_legacy(bytes),
        };
        let Contents { tensors, metadata, stored_types } = contents.map_err(malformed)?;
        if tensors.is_empty() {
            return Err(malformed("it holds no tensors".to_owned()));
        }
        require_finite(&tensors, path)?;
        Ok(Self { tensors: without_module(tensors), metadata, form, stored_types })
    }
}

fn recognise(bytes: &[u8]) -> Result<FileForm, String> {
    // The length of the header comes first, and may look like anything.
    if bytes.get(8) == Some(&b'{') {
        return Ok(FileForm::Safetensors);
    }
    let lower: Vec<u8> = bytes.iter().take(64).map(u8::to_ascii_lowercase).collect();
    Err(match &lower[..] {
        [b'p', b'k', 3, 4, ..] => return Ok(FileForm::TorchZip),
        [0x80, ..] => return Ok(FileForm::TorchLegacy),
        [] => "the file is empty".to_owned(),
        start if start.starts_with(b"version https://git-lfs") => {
            "it is a pointer of Git LFS in place of the weights; run `git lfs pull`, or download the file itself"
                .to_owned()
        }
        start if start.starts_with(b"<!doctype") || start.starts_with(b"<html") => {
            "it is a web page, not weights; download the file itself".to_owned()
        }
        _ if bytes.get(257..262) == Some(b"ustar") => {
            "it is a tar archive, as PyTorch wrote before version 0.1.10; save it again with a newer PyTorch".to_owned()
        }
        _ => "it is not a safetensors file, nor one of torch.save".to_owned(),
    })
}

fn require_finite(tensors: &BTreeMap<String, Tensor>, path: &Path) -> Result<(), WeightsError> {
    let mut names = Vec::new();
    for (name, tensor) in tensors {
        if tensor.dtype() == DType::F32 && !is_finite(tensor)? {
            names.push(name.clone());
        }
    }
    if names.is_empty() { Ok(()) } else { Err(WeightsError::NotFinite { path: path.to_owned(), names }) }
}

fn is_finite(tensor: &Tensor) -> candle_core::Result<bool> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => {
            Ok(storage.as_slice::<f32>()?[start..end].iter().all(|value| value.is_finite()))
        }
        _ => Ok(tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite())),
    }
}

/// Takes off the prefix of a network that was trained on several devices.
fn without_module(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    const PREFIX: &str = "module.";
    if !tensors.keys().all(|name| name.starts_with(PREFIX)) {
        return tensors;
    }
    tensors.into_iter().map(|(name, tensor)| (name[PREFIX.len()..].to_owned(), tensor)).collect()
}
