//! Addresses of tensors, and fresh memory for results.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr, DriverError, sys::CUresult};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Result, Shape, Storage, Tensor};
use half::bf16;

use super::gpu::Gpu;
use crate::error::KernelError;
use crate::graph::Values;

/// Where the elements of a contiguous tensor begin on the device.
pub(super) fn address(op: &'static str, argument: &'static str, tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, _)) = layout.contiguous_offsets() else {
        return Err(KernelError::NotContiguous { op, argument }.into());
    };
    let Storage::Cuda(storage) = &*storage else {
        return Err(KernelError::DifferentDevice { op, argument }.into());
    };
    let bytes = (start * tensor.dtype().size_in_bytes()) as u64;
    Ok(start_of(storage)? + bytes)
}

/// Where the first element of a tensor lies on the device, whatever the layout.
pub(super) fn start(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { candle_core::bail!("a tensor does not lie on the GPU") };
    Ok(start_of(storage)? + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}

/// As [`address`], and 0 where there is no tensor.
pub(super) fn address_or_null(op: &'static str, argument: &'static str, tensor: Option<&Tensor>) -> Result<u64> {
    tensor.map_or(Ok(0), |tensor| address(op, argument, tensor))
}

fn start_of(storage: &CudaStorage) -> Result<u64> {
    let stream = storage.device.cuda_stream();
    Ok(match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U8(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::I32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F64(slice) => slice.device_ptr(&stream).0,
        _ => {
            candle_core::bail!("a tensor of {:?} has no kernels", candle_core::backend::BackendStorage::dtype(storage))
        }
    })
}

/// Memory that a kernel is about to fill.
pub(crate) struct Fresh {
    storage: CudaStorage,
    shape: Shape,
    /// Where it begins on the device.
    pub(super) address: u64,
}

impl Fresh {
    /// The result as a tensor without history.
    pub(super) fn into_tensor(self) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage), self.shape, BackpropOp::none(), false)
    }
}

impl From<Fresh> for Values {
    fn from(fresh: Fresh) -> Self {
        Self::Cuda(fresh.storage)
    }
}

impl Gpu {
    /// Room for a result, with unspecified contents.
    pub(super) fn empty(&self, dtype: DType, shape: impl Into<Shape>) -> Result<Fresh> {
        let shape = shape.into();
        let len = shape.elem_count();
        let device = self.device.clone();
        let storage = match dtype {
            DType::F32 => CudaStorage::wrap_cuda_slice(self.block::<f32>(len)?, device),
            DType::BF16 => CudaStorage::wrap_cuda_slice(self.block::<bf16>(len)?, device),
            DType::U8 => CudaStorage::wrap_cuda_slice(self.block::<u8>(len)?, device),
            DType::F64 => CudaStorage::wrap_cuda_slice(self.block::<f64>(len)?, device),
            other => candle_core::bail!("results of {other:?} are not made on the GPU"),
        };
        let address = start_of(&storage)?;
        Ok(Fresh { storage, shape, address })
    }

    /// A block of `len` elements, with unspecified contents; at least one, because the driver refuses empty ones.
    pub(super) fn block<T: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<T>> {
        // SAFETY: what the memory holds is never read before a kernel has written it: every caller hands the block to
        // a kernel or a copy that fills it.
        let block = unsafe { self.stream.alloc::<T>(len.max(1)) };
        block.or_else(|error| self.memory_error(error, len * size_of::<T>()))
    }

    fn memory_error<T>(&self, error: DriverError, bytes: usize) -> Result<T> {
        if error.0 != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Err(error).w();
        }
        let (free, total) = self.stream.context().mem_get_info().unwrap_or((0, 0));
        let [wanted_mib, free_mib, total_mib] = [bytes, free, total].map(|bytes| bytes >> 20);
        // Not `into`: what candle wraps so can be told apart again, see `is_out_of_device_memory`.
        Err(candle_core::Error::Cuda(Box::new(KernelError::DeviceMemory { wanted_mib, free_mib, total_mib })))
    }
}
