//! Weights as safetensors files: equal weights give equal bytes.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::TrainError;
use crate::store::write_atomically;

/// The tensors and the metadata of a safetensors file.
#[derive(Debug)]
pub struct Weights {
    /// Tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The header's metadata.
    pub metadata: BTreeMap<String, String>,
}

impl Weights {
    /// Reads a file whole.
    ///
    /// # Errors
    /// A file that cannot be read, or is not safetensors.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
        Self::parse(&bytes).map_err(|error| TrainError::malformed(path, format!("not a safetensors file: {error}")))
    }

    fn parse(bytes: &[u8]) -> Result<Self, Box<dyn std::error::Error>> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?.into_iter().collect();
        Ok(Self { tensors, metadata })
    }

    /// Puts the tensors into the variables of a model that has been built. All must fit: same names, same shapes.
    ///
    /// `path` is for the message alone.
    ///
    /// # Errors
    /// [`TrainError::Misfit`] lists what does not fit; then no variable has changed.
    pub fn restore(&self, vars: &VarMap, path: &Path) -> Result<(), TrainError> {
        let vars = lock(vars)?;
        let mut report = LoadReport::default();
        for (name, var) in vars.iter() {
            match self.tensors.get(name) {
                None => report.missing.push(name.clone()),
                Some(tensor) if tensor.shape() != var.shape() => {
                    report.reshaped.push(format!("{name} {:?} instead of {:?}", tensor.dims(), var.dims()));
                }
                Some(_) => report.num_loaded += 1,
            }
        }
        report.unexpected = self.tensors.keys().filter(|name| !vars.contains_key(*name)).cloned().collect();
        report.missing.sort();
        report.reshaped.sort();
        if !report.is_exact() {
            return Err(TrainError::Misfit { path: path.to_owned(), report: Box::new(report) });
        }
        for (name, var) in vars.iter() {
            var.set(&self.tensors[name].to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(())
    }
}

/// How the names and shapes of a file match those of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors that fit.
    pub num_loaded: usize,
    /// The model's names that the file lacks.
    pub missing: Vec<String>,
    /// The file's names that the model lacks.
    pub unexpected: Vec<String>,
    /// Names whose shapes differ, with both shapes.
    pub reshaped: Vec<String>,
}

impl LoadReport {
    /// Whether everything fits.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.reshaped.is_empty()
    }
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tensors fit", self.num_loaded)?;
        for (what, names) in
            [("missing", &self.missing), ("unexpected", &self.unexpected), ("of another shape", &self.reshaped)]
        {
            if !names.is_empty() {
                let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
                let more = if names.len() > 5 { ", …" } else { "" };
                write!(f, "; {} {what}: {}{more}", names.len(), shown.join(", "))?;
            }
        }
        Ok(())
    }
}

/// All variables of a model by name, buffers included.
pub(crate) fn all_tensors(vars: &VarMap) -> Result<BTreeMap<String, Tensor>, TrainError> {
    Ok(lock(vars)?.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect())
}

/// Name of the first tensor with a value that is infinite or no number; whole numbers have none.
pub(crate) fn first_not_finite(tensors: &BTreeMap<String, Tensor>) -> Result<Option<String>, TrainError> {
    for (name, tensor) in tensors {
        // The square of any f32 is finite as f64, and so is the sum of as many as fit into memory.
        if tensor.dtype() == DType::F32 && !taper_kernels::sum_of_squares(tensor)?.is_finite() {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}

type Vars<'a> = std::sync::MutexGuard<'a, std::collections::HashMap<String, candle_core::Var>>;

fn lock(vars: &VarMap) -> Result<Vars<'_>, TrainError> {
    let poisoned = |_| candle_core::Error::Msg("another thread panicked while it held the variables".into());
    Ok(vars.data().lock().map_err(poisoned)?)
}

/// Writes tensors and metadata as a safetensors file, atomically. Equal input gives equal bytes.
///
/// # Errors
/// A tensor that is neither f32 nor i64, or a file that cannot be written.
pub fn write_weights<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<&str, &str>,
) -> Result<(), TrainError> {
    write_atomically(path, &encode(tensors, metadata)?)
}

/// The bytes of a safetensors file.
pub(crate) fn encode<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<&str, &str>,
) -> Result<Vec<u8>, TrainError> {
    let parts: Result<Vec<_>, TrainError> =
        tensors.into_iter().map(|(name, tensor)| Ok((name, raw(name, tensor)?))).collect();
    let parts = parts?;
    let views: Result<Vec<_>, _> = parts
        .iter()
        .map(|(name, raw)| Ok((*name, TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes)?)))
        .collect();
    let bytes = views.and_then(|views| safetensors::serialize(views, None)).map_err(unencodable)?;
    with_metadata(&bytes, metadata)
}

fn unencodable(error: safetensors::SafeTensorError) -> TrainError {
    TrainError::Candle(candle_core::Error::wrap(error))
}

/// The library keeps metadata in a hash map, whose order changes from process to process; here the header is written
/// once more with its keys sorted.
fn with_metadata(bytes: &[u8], metadata: &BTreeMap<&str, &str>) -> Result<Vec<u8>, TrainError> {
    let (header_len, _) = SafeTensors::read_metadata(bytes).map_err(unencodable)?;
    let json = |error: serde_json::Error| TrainError::Candle(candle_core::Error::wrap(error));
    let mut header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + header_len]).map_err(json)?;
    let entries = metadata.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
    header.insert("__metadata__".to_owned(), Value::Object(entries));
    let mut text = serde_json::to_vec(&header).map_err(json)?;
    // The format wants the data to start at a multiple of eight.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut whole = Vec::with_capacity(8 + text.len() + bytes.len() - header_len);
    whole.extend_from_slice(&(text.len() as u64).to_le_bytes());
    whole.extend_from_slice(&text);
    whole.extend_from_slice(&bytes[8 + header_len..]);
    Ok(whole)
}

struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn raw(name: &str, tensor: &Tensor) -> Result<Raw, TrainError> {
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    let (dtype, bytes) = match tensor.dtype() {
        DType::F32 => (Dtype::F32, flat.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect()),
        DType::I64 => (Dtype::I64, flat.to_vec1::<i64>()?.into_iter().flat_map(i64::to_le_bytes).collect()),
        other => return Err(candle_core::Error::Msg(format!("{name} is {other:?}; f32 and i64 can be saved")).into()),
    };
    Ok(Raw { dtype, shape: tensor.dims().to_vec(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tensor {
        Tensor::new(&[[1f32, 2.0], [3.0, -0.0]], &Device::Cpu).unwrap()
    }

    #[test]
    fn metadata_is_sorted_and_read_back() {
        let count = Tensor::new(7i64, &Device::Cpu).unwrap();
        let metadata = [("taper", "{}"), ("format", "pt"), ("a", "b")].into();
        let bytes = encode([("w", &sample()), ("n", &count)], &metadata).unwrap();
        let header = String::from_utf8_lossy(&bytes[8..]).into_owned();
        assert!(header.starts_with(r#"{"__metadata__":{"a":"b","format":"pt","taper":"{}"}"#), "{header}");
        let weights = Weights::parse(&bytes).unwrap();
        assert_eq!(weights.metadata["format"], "pt");
        assert_eq!(weights.tensors["n"].to_scalar::<i64>().unwrap(), 7);
        assert_eq!(weights.tensors["w"].to_vec2::<f32>().unwrap(), [[1.0, 2.0], [3.0, -0.0]]);
    }

    #[test]
    fn misfit_lists_names_and_changes_nothing() {
        let vars = VarMap::new();
        let var = candle_core::Var::from_tensor(&sample()).unwrap();
        vars.data().lock().unwrap().insert("w".into(), var.clone());
        let other = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).unwrap();
        let tensors = [("w".to_owned(), other), ("x".to_owned(), sample())].into();
        let error = Weights { tensors, metadata: BTreeMap::new() }.restore(&vars, Path::new("f")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("w [3, 2] instead of [2, 2]") && text.contains("1 unexpected: x"), "{text}");
        assert_eq!(var.to_vec2::<f32>().unwrap()[0], [1.0, 2.0]);
    }
}
