//! The python form: a pickled dict per file, written by Python 2 officially and by Python 3 elsewhere.

use std::borrow::Cow;
use std::path::Path;

use super::{Form, IMAGE_BYTES, Names, Records, push_interleaved};
use crate::pickle::{Id, Limits, Pickle, Value};
use crate::{DataError, LabelKind, Result};

/// What is read from the values of a pickle; the error is a reason, without the file.
type Parsed<T> = std::result::Result<T, String>;

/// The official files have 250,000 values. Other names than expected are kept, as pickles of other data sets may have
/// any beside what is read; what is read is checked where it is used.
const LIMITS: Limits = Limits { max_values: 4_000_000, may_name: |_, _| true };

/// Reads `data` and the labels of one file.
pub(super) fn read_images(form: Form, labels: LabelKind, path: &Path, bytes: &[u8]) -> Result<Records> {
    let malformed = |reason: String| DataError::malformed(path, reason);
    let pickle = Pickle::parse(bytes, LIMITS).map_err(malformed)?;
    let key = match (form.is_cifar_100(), labels) {
        (false, _) => "labels",
        (true, LabelKind::Fine) => "fine_labels",
        (true, LabelKind::Coarse) => "coarse_labels",
    };
    let array = entry(&pickle, "data").and_then(|id| Array::of(&pickle, id)).map_err(malformed)?;
    let stored = entry(&pickle, key).and_then(|id| integers(&pickle, id, key)).map_err(malformed)?;
    let num_images = array.num_rows;
    if stored.len() != num_images || num_images == 0 {
        return Err(malformed(format!("{num_images} images and {} labels", stored.len())));
    }
    let num_classes = form.num_classes(labels);
    let mut records = Records::default();
    records.pixels.reserve_exact(num_images * IMAGE_BYTES);
    for (record, label) in stored.into_iter().enumerate() {
        let Some(label_index) = u32::try_from(label).ok().filter(|label| (*label as usize) < num_classes) else {
            return Err(DataError::LabelOutOfRange { path: path.to_path_buf(), record, label, num_classes });
        };
        records.labels.push(label_index);
        push_interleaved(&mut records.pixels, |place| array.byte(record, place));
    }
    Ok(records)
}

/// Reads the class names of the meta file.
pub(super) fn read_names(form: Form, path: &Path, bytes: &[u8]) -> Result<Names> {
    let malformed = |reason: String| DataError::malformed(path, reason);
    let pickle = Pickle::parse(bytes, LIMITS).map_err(malformed)?;
    let list = |key: &str| entry(&pickle, key).and_then(|id| strings(&pickle, id, key)).map_err(malformed);
    Ok(match form.is_cifar_100() {
        false => Names { fine: Some(list("label_names")?), coarse: None },
        true => Names { fine: Some(list("fine_label_names")?), coarse: Some(list("coarse_label_names")?) },
    })
}

/// The value of a key of the outermost dict.
fn entry(pickle: &Pickle<'_>, key: &str) -> Parsed<Id> {
    let Value::Dict(pairs) = pickle.value(pickle.root()) else { return Err("it is not a pickled dict".to_string()) };
    let is_key = |id: Id| bytes_of(pickle, id).is_ok_and(|bytes| *bytes == *key.as_bytes());
    let found = pairs.iter().find(|(id, _)| is_key(*id));
    found.map(|(_, value)| *value).ok_or_else(|| format!("the pickled dict has no {key:?}"))
}

/// The bytes of a string. Python 3 writes bytes in protocol 2 as `_codecs.encode(text, "latin1")`.
fn bytes_of<'a>(pickle: &Pickle<'a>, id: Id) -> Parsed<Cow<'a, [u8]>> {
    match pickle.value(id) {
        Value::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        Value::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
        Value::Call { callable, arguments, .. } => match (pickle.value(*callable), pickle.items(*arguments)) {
            (Value::Global(b"_codecs", b"encode"), [text, _]) => latin1(pickle, *text).map(Cow::Owned),
            (Value::Global(b"__builtin__" | b"builtins", b"bytes"), []) => Ok(Cow::Borrowed(&[])),
            _ => Err("a call instead of a string".to_string()),
        },
        _ => Err("something else instead of a string".to_string()),
    }
}

fn latin1(pickle: &Pickle<'_>, id: Id) -> Parsed<Vec<u8>> {
    let Value::Text(text) = pickle.value(id) else { return Err("encoded bytes that are no text".to_string()) };
    let byte = |letter| u8::try_from(u32::from(letter)).map_err(|_| "encoded bytes beyond latin1".to_string());
    text.chars().map(byte).collect()
}

fn integers(pickle: &Pickle<'_>, id: Id, key: &str) -> Parsed<Vec<i64>> {
    let integer = |id: &Id| match pickle.value(*id) {
        Value::Int(integer) => Ok(*integer),
        _ => Err(format!("{key:?} is not a list of integers")),
    };
    pickle.items(id).iter().map(integer).collect()
}

fn strings(pickle: &Pickle<'_>, id: Id, key: &str) -> Parsed<Vec<String>> {
    let string = |id: &Id| {
        let bytes = bytes_of(pickle, *id).map_err(|reason| format!("{key:?} holds {reason}"))?;
        String::from_utf8(bytes.into_owned()).map_err(|_| format!("{key:?} holds text that is not UTF-8"))
    };
    pickle.items(id).iter().map(string).collect()
}

/// A numpy array of bytes, `[num_rows, 3072]`.
struct Array<'a> {
    bytes: Cow<'a, [u8]>,
    num_rows: usize,
    order: ArrayOrder,
}

#[derive(Clone, Copy)]
enum ArrayOrder {
    RowByRow,
    ColumnByColumn,
}

impl<'a> Array<'a> {
    /// Understands the two ways in which numpy pickles an array: `_reconstruct` with a state, and from protocol 5 on
    /// `_frombuffer`. The modules were `numpy.core` before numpy 2 and are `numpy._core` since.
    fn of(pickle: &Pickle<'a>, id: Id) -> Parsed<Self> {
        let not_an_array = || "\"data\" is not a numpy array".to_string();
        let Value::Call { callable, arguments, state, .. } = pickle.value(id) else { return Err(not_an_array()) };
        match (pickle.value(*callable), state) {
            (Value::Global(b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct"), Some(state)) => {
                let [_, shape, dtype, fortran, bytes] = pickle.items(*state) else { return Err(not_an_array()) };
                let order = match pickle.value(*fortran) {
                    Value::Bool(true) => ArrayOrder::ColumnByColumn,
                    _ => ArrayOrder::RowByRow,
                };
                Self::new(pickle, [*shape, *dtype, *bytes], order)
            }
            (Value::Global(b"numpy.core.numeric" | b"numpy._core.numeric", b"_frombuffer"), _) => {
                let [bytes, dtype, shape, order] = pickle.items(*arguments) else { return Err(not_an_array()) };
                let order = match &*bytes_of(pickle, *order)? {
                    b"F" => ArrayOrder::ColumnByColumn,
                    _ => ArrayOrder::RowByRow,
                };
                Self::new(pickle, [*shape, *dtype, *bytes], order)
            }
            _ => Err(not_an_array()),
        }
    }

    fn new(pickle: &Pickle<'a>, [shape, dtype, bytes]: [Id; 3], order: ArrayOrder) -> Parsed<Self> {
        let name = match pickle.value(dtype) {
            Value::Call { callable, arguments, .. } => match (pickle.value(*callable), pickle.items(*arguments)) {
                (Value::Global(b"numpy", b"dtype"), [name, ..]) => bytes_of(pickle, *name)?,
                _ => Cow::Borrowed(&b""[..]),
            },
            _ => Cow::Borrowed(&b""[..]),
        };
        if !matches!(&*name, b"u1" | b"|u1" | b"uint8") {
            return Err("\"data\" is not an array of uint8".to_string());
        }
        let shape = integers(pickle, shape, "data")?;
        let bytes = bytes_of(pickle, bytes)?;
        let num_rows = bytes.len() / IMAGE_BYTES;
        if shape != [num_rows as i64, IMAGE_BYTES as i64] || bytes.len() % IMAGE_BYTES != 0 {
            return Err(format!("\"data\" has the shape {shape:?} and {} bytes, not [n, {IMAGE_BYTES}]", bytes.len()));
        }
        Ok(Self { bytes, num_rows, order })
    }

    fn byte(&self, row: usize, column: usize) -> u8 {
        match self.order {
            ArrayOrder::RowByRow => self.bytes[row * IMAGE_BYTES + column],
            ArrayOrder::ColumnByColumn => self.bytes[column * self.num_rows + row],
        }
    }
}
