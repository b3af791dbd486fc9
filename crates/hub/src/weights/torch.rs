//! Weights that PyTorch's `torch.save` wrote, in both of its forms. Nothing in them is run.

mod legacy;
mod state_dict;
mod zip;

pub(super) use legacy::read as read_legacy;
pub(super) use zip::read as read_zip;

use state_dict::StateDict;

use super::file::Contents;

/// Most tensors of a file; ResNet-152 has 932.
const MAX_TENSORS: usize = 100_000;

/// Most numbers for each byte of the file. Honest files have one for each two bytes at most, twice as many where
/// tensors share their storage; strides of zero could make any number of them.
const MAX_VALUES_PER_BYTE: usize = 2;

/// Reads the tensors, a storage at a time. `storage` gives the bytes of one, by its key.
fn read_tensors<'a, B: AsRef<[u8]>>(
    state_dict: &'a StateDict,
    num_file_bytes: usize,
    mut storage: impl FnMut(&'a str) -> Result<B, String>,
) -> Result<Contents, String> {
    require_bounded(state_dict, num_file_bytes)?;
    let mut contents = Contents::default();
    for (key, tensors) in &state_dict.by_storage {
        let bytes = storage(key)?;
        for (name, place) in tensors {
            let named = |reason: String| format!("tensor {name:?}: {reason}");
            contents.add(name, place.number, place.read(bytes.as_ref()).map_err(named)?)?;
        }
    }
    Ok(contents)
}

fn require_bounded(state_dict: &StateDict, num_file_bytes: usize) -> Result<(), String> {
    let tensors = || state_dict.by_storage.values().flatten();
    let num_tensors = tensors().count();
    if num_tensors > MAX_TENSORS {
        return Err(format!("{num_tensors} tensors are more than {MAX_TENSORS}"));
    }
    let mut num_values = 0usize;
    for (name, place) in tensors() {
        let more = place.num_values().map_err(|reason| format!("tensor {name:?}: {reason}"))?;
        num_values = num_values.saturating_add(more);
        if num_values > num_file_bytes.saturating_mul(MAX_VALUES_PER_BYTE) {
            return Err(format!("tensor {name:?} and those before it claim more numbers than the file can hold"));
        }
    }
    Ok(())
}
