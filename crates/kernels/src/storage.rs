use std::ops::Deref;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, StorageRef, Tensor};

use crate::error::KernelError;

/// Refuses tensors that are not f32, or on a device without kernels.
///
/// With [`require_float`] the one place that decides on device and element type.
pub(crate) fn require_f32(op: &'static str, argument: &'static str, tensor: &Tensor) -> Result<()> {
    require(op, argument, tensor, DType::F32)
}

/// Refuses tensors that activations cannot be: f32 anywhere, on a GPU bf16 as well.
pub(crate) fn require_float(op: &'static str, argument: &'static str, tensor: &Tensor) -> Result<()> {
    match (tensor.device(), tensor.dtype()) {
        (Device::Cuda(_), DType::BF16) => require(op, argument, tensor, DType::BF16),
        _ => require_f32(op, argument, tensor),
    }
}

/// Refuses tensors of another element type than `expected`, or on a device without kernels.
pub(crate) fn require(op: &'static str, argument: &'static str, tensor: &Tensor, expected: DType) -> Result<()> {
    let has_kernels = match tensor.device() {
        Device::Cpu => true,
        Device::Cuda(_) => cfg!(feature = "cuda"),
        Device::Metal(_) => false,
    };
    if !has_kernels {
        return Err(KernelError::Device { op, argument }.into());
    }
    if tensor.dtype() != expected {
        let found = tensor.dtype();
        return Err(KernelError::ElementType { op, argument, found, expected }.into());
    }
    Ok(())
}

/// Refuses tensors of another shape than `expected`; `meaning` says what the shape stands for.
pub(crate) fn require_shape(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    expected: &[usize],
    meaning: &str,
) -> Result<()> {
    if tensor.dims() == expected {
        return Ok(());
    }
    Err(shape_error(op, argument, tensor, format!("{expected:?} ({meaning})")))
}

/// An error that says which shape was found and, in words, which was expected.
pub(crate) fn shape_error(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    expected: String,
) -> candle_core::Error {
    sizes_error(op, argument, tensor.dims(), expected)
}

/// As [`shape_error`], of sizes that no tensor has yet.
pub(crate) fn sizes_error(
    op: &'static str,
    argument: &'static str,
    found: &[usize],
    expected: String,
) -> candle_core::Error {
    KernelError::ArgumentShape { op, argument, found: found.into(), expected }.into()
}

/// An error about an option outside its range.
pub(crate) fn option_error(
    op: &'static str,
    option: &'static str,
    found: impl ToString,
    expected: impl Into<String>,
) -> candle_core::Error {
    let (found, expected) = (found.to_string(), expected.into());
    KernelError::OptionValue { op, option, found, expected }.into()
}

/// The elements of a contiguous CPU tensor, held under the tensor's read lock.
pub(crate) struct View<'a> {
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
}

impl Deref for View<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.end],
            // `view` has checked device and element type.
            _ => &[],
        }
    }
}

/// Locks a contiguous f32 tensor for reading.
pub(crate) fn view<'a>(op: &'static str, argument: &'static str, tensor: &'a Tensor) -> Result<View<'a>> {
    require_f32(op, argument, tensor)?;
    if !tensor.device().is_cpu() {
        return Err(KernelError::DifferentDevice { op, argument }.into());
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(KernelError::NotContiguous { op, argument }.into());
    };
    Ok(View { storage, start, end })
}

/// The elements behind a contiguous layout of a tensor that an in-place op writes.
pub(crate) fn slice_mut<'a>(
    op: &'static str,
    argument: &'static str,
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> Result<&'a mut [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(KernelError::NotContiguous { op, argument }.into());
    };
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        other => {
            let found = candle_core::backend::BackendStorage::dtype(other);
            Err(KernelError::ElementType { op, argument, found, expected: DType::F32 }.into())
        }
    }
}

/// A new tensor without history.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}
