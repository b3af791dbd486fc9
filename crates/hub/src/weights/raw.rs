//! Stored numbers as tensors.

use std::borrow::Cow;

use candle_core::{DType, Device, Tensor};

/// Most axes of a tensor; image classifiers have four.
pub(super) const MAX_AXES: usize = 8;

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NumberType {
    F32,
    F64,
    F16,
    BF16,
    I64,
    I32,
    I16,
    /// Bytes and truth values.
    U8,
}

impl NumberType {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        self.dtype().size_in_bytes()
    }

    /// The name that candle and safetensors know it by.
    pub(super) fn name(self) -> &'static str {
        self.dtype().as_str()
    }

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
            Self::I64 => DType::I64,
            Self::I32 => DType::I32,
            Self::I16 => DType::I16,
            Self::U8 => DType::U8,
        }
    }

    fn is_integer(self) -> bool {
        matches!(self, Self::I64 | Self::I32 | Self::I16 | Self::U8)
    }
}

/// Where the numbers of a tensor lie in a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: NumberType,
    pub(super) shape: Vec<usize>,
    /// Numbers from one index of an axis to the next.
    pub(super) strides: Vec<usize>,
    /// Numbers before the first.
    pub(super) offset: usize,
}

impl Place {
    /// Numbers without gaps from the start, last axis innermost.
    pub(super) fn dense(number: NumberType, shape: Vec<usize>) -> Self {
        Self { strides: dense_strides(&shape), number, shape, offset: 0 }
    }

    /// How many numbers the tensor has.
    pub(super) fn num_values(&self) -> Result<usize, String> {
        if self.shape.len() > MAX_AXES || self.strides.len() != self.shape.len() {
            return Err(format!("{} axes and {} strides", self.shape.len(), self.strides.len()));
        }
        let product = self.shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
        product.ok_or_else(|| format!("the shape {:?} overflows", self.shape))
    }

    /// The tensor, f32 from fractions and i64 from integers.
    ///
    /// The caller bounds [`Place::num_values`]: strides of zero make many numbers of one.
    pub(super) fn read(&self, storage: &[u8]) -> Result<Tensor, String> {
        let num_values = self.num_values()?;
        self.require_inside(storage, num_values)?;
        let bytes = self.gather(storage, num_values);
        let tensor = Tensor::from_raw_buffer(&bytes, self.number.dtype(), &self.shape, &Device::Cpu);
        let wanted = if self.number.is_integer() { DType::I64 } else { DType::F32 };
        tensor.and_then(|tensor| tensor.to_dtype(wanted)).map_err(|error| error.to_string())
    }

    fn require_inside(&self, storage: &[u8], num_values: usize) -> Result<(), String> {
        if num_values == 0 {
            return Ok(());
        }
        let axes = self.shape.iter().zip(&self.strides);
        let mut steps = axes.map(|(side, stride)| (side - 1).checked_mul(*stride));
        let last = steps.try_fold(self.offset, |last, step| last.checked_add(step?));
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(self.number.size()));
        if end.is_none_or(|end| end > storage.len()) {
            return Err(format!(
                "shape {:?} with strides {:?} from {} reaches past the {} bytes of its storage",
                self.shape,
                self.strides,
                self.offset,
                storage.len()
            ));
        }
        Ok(())
    }

    /// The bytes in the order of the tensor's indices.
    fn gather<'a>(&self, storage: &'a [u8], num_values: usize) -> Cow<'a, [u8]> {
        let size = self.number.size();
        if num_values == 0 {
            return Cow::Borrowed(&[]);
        }
        // The stride of an axis with a single index means nothing.
        let mut axes = self.shape.iter().zip(self.strides.iter().zip(dense_strides(&self.shape)));
        if axes.all(|(side, (stride, dense))| *side == 1 || *stride == dense) {
            return Cow::Borrowed(&storage[self.offset * size..(self.offset + num_values) * size]);
        }
        let mut bytes = Vec::with_capacity(num_values * size);
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..num_values {
            bytes.extend_from_slice(&storage[at * size..(at + 1) * size]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        Cow::Owned(bytes)
    }
}

fn dense_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = shape[axis].saturating_mul(strides[axis]);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn place(shape: &[usize], strides: &[usize], offset: usize) -> Place {
        Place { number: NumberType::F32, shape: shape.to_vec(), strides: strides.to_vec(), offset }
    }

    #[test]
    fn strides_and_offsets_are_followed() {
        let storage = floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let cases: [(Place, &[f32]); 6] = [
            (place(&[2, 3], &[3, 1], 1), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            (place(&[3, 2], &[1, 3], 0), &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
            (place(&[2, 2], &[0, 1], 5), &[5.0, 6.0, 5.0, 6.0]),
            (place(&[], &[], 6), &[6.0]),
            (place(&[1, 2], &[999, 1], 0), &[0.0, 1.0]),
            (place(&[0, 2], &[2, 1], 99), &[]),
        ];
        for (place, expected) in cases {
            let tensor = place.read(&storage).unwrap();
            assert_eq!(tensor.dims(), place.shape);
            assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected, "{place:?}");
        }
    }

    #[test]
    fn numbers_of_every_type_are_converted() {
        let cases: [(NumberType, &[u8], f64); 8] = [
            (NumberType::F32, &1.5f32.to_le_bytes(), 1.5),
            (NumberType::F64, &(-2.5f64).to_le_bytes(), -2.5),
            (NumberType::F16, &[0x00, 0x3e], 1.5),
            (NumberType::BF16, &[0xc0, 0x3f], 1.5),
            (NumberType::I64, &(-7i64).to_le_bytes(), -7.0),
            (NumberType::I32, &(-7i32).to_le_bytes(), -7.0),
            (NumberType::I16, &(-7i16).to_le_bytes(), -7.0),
            (NumberType::U8, &[200], 200.0),
        ];
        for (number, bytes, expected) in cases {
            // One byte before them takes the numbers off their alignment.
            let shifted: Vec<u8> = [&[0], bytes].concat();
            let tensor = Place::dense(number, vec![]).read(&shifted[1..]).unwrap();
            assert_eq!(tensor.dtype(), if number.is_integer() { DType::I64 } else { DType::F32 });
            assert_eq!(tensor.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap(), expected, "{number:?}");
        }
    }

    #[test]
    fn places_outside_the_storage_are_refused() {
        let storage = floats(&[0.0; 4]);
        let huge = usize::MAX;
        let cases = [
            place(&[5], &[1], 0),
            place(&[2], &[4], 0),
            place(&[1], &[1], 4),
            place(&[2], &[huge], 1),
            place(&[huge], &[huge], 0),
            place(&[1], &[1], huge),
            place(&[huge, 2], &[0, 0], 0),
            place(&[1; 9], &[1; 9], 0),
            place(&[1], &[], 0),
        ];
        for place in cases {
            assert!(place.read(&storage).is_err(), "{place:?}");
        }
    }
}
