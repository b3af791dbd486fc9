//! The binary form: records of one label byte (CIFAR-10) or a coarse and a fine one (CIFAR-100), then three planes.

use std::io::Read;
use std::path::Path;

use super::{Form, IMAGE_BYTES, Records, push_interleaved, read_error};
use crate::{DataError, LabelKind, Result};

/// Records for which memory is taken at first; then for so many times as many as were there, so that a false length costs
/// little, and a true one few copies.
const FIRST_RECORDS: usize = 4096;
const TIMES: usize = 16;

/// Reads a file of `num_bytes` that holds nothing but records.
pub(super) fn read(
    form: Form,
    labels: LabelKind,
    path: &Path,
    num_bytes: u64,
    reader: &mut dyn Read,
) -> Result<Records> {
    let label_bytes = if form.is_cifar_100() { 2 } else { 1 };
    let record_bytes = label_bytes + IMAGE_BYTES;
    let num_records = num_records(path, num_bytes, record_bytes)?;
    let label_at = match labels {
        LabelKind::Fine => label_bytes - 1,
        LabelKind::Coarse => 0,
    };
    let num_classes = form.num_classes(labels);
    let mut records = Records::default();
    let mut bytes = vec![0; record_bytes];
    for record in 0..num_records {
        reader.read_exact(&mut bytes).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                DataError::malformed(path, format!("it is truncated in record {record} of {num_records}"))
            }
            _ => read_error(path, source),
        })?;
        let label = bytes[label_at];
        if usize::from(label) >= num_classes {
            let path = path.to_path_buf();
            return Err(DataError::LabelOutOfRange { path, record, label: label.into(), num_classes });
        }
        if records.pixels.len() == records.pixels.capacity() {
            let chunk = FIRST_RECORDS.max(TIMES * record).min(num_records - record);
            records.pixels.reserve_exact(chunk * IMAGE_BYTES);
        }
        records.labels.push(label.into());
        push_interleaved(&mut records.pixels, |place| bytes[label_bytes + place]);
    }
    Ok(records)
}

/// How many records a file of this length holds: at least one, and nothing else.
fn num_records(path: &Path, num_bytes: u64, record_bytes: usize) -> Result<usize> {
    let record_bytes = record_bytes as u64;
    let (num_records, rest) = (num_bytes / record_bytes, num_bytes % record_bytes);
    if num_records == 0 || rest != 0 {
        let reason = format!(
            "{num_bytes} bytes are not a whole number of records of {record_bytes} bytes: \
             {num_records} and {rest} bytes"
        );
        return Err(DataError::malformed(path, reason));
    }
    // The caller has bounded the length of the file.
    Ok(num_records as usize)
}
