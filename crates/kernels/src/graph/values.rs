use candle_core::{CpuStorage, Result, Shape, Storage, Tensor};

/// The elements of a result, before they are a tensor.
pub(crate) enum Values {
    Cpu(Vec<f32>),
    #[cfg(feature = "cuda")]
    Cuda(candle_core::CudaStorage),
}

impl From<Vec<f32>> for Values {
    fn from(values: Vec<f32>) -> Self {
        Self::Cpu(values)
    }
}

impl Values {
    /// As candle stores them, if they fill the shape. On a GPU the shape has sized the memory.
    pub(super) fn into_storage(self, op: &str, shape: &Shape) -> Result<Storage> {
        match self {
            Self::Cpu(values) if values.len() == shape.elem_count() => Ok(Storage::Cpu(CpuStorage::F32(values))),
            Self::Cpu(values) => candle_core::bail!("{op}: {} values do not fill the shape {shape:?}", values.len()),
            #[cfg(feature = "cuda")]
            Self::Cuda(values) => Ok(Storage::Cuda(values)),
        }
    }

    /// A tensor without history.
    pub(super) fn into_tensor(self, shape: Shape) -> Result<Tensor> {
        match self {
            Self::Cpu(values) => crate::storage::tensor(values, shape),
            #[cfg(feature = "cuda")]
            Self::Cuda(values) => {
                let none = candle_core::op::BackpropOp::none();
                Ok(Tensor::from_storage(Storage::Cuda(values), shape, none, false))
            }
        }
    }
}
