use candle_core::{DType, Shape};

use crate::simd::CpuPath;

/// What an op refuses, with the facts needed to mend the call.
///
/// Ops return [`candle_core::Result`]; a `KernelError` travels inside
/// [`candle_core::Error::Wrapped`], so its text is what the caller prints.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The processor lacks a path's instructions.
    #[error("this processor cannot run the CPU path {path}; the fastest it can is {best}")]
    CpuPath {
        /// What was asked for.
        path: CpuPath,
        /// The fastest path of this processor that keeps f32's precision.
        best: CpuPath,
    },
    /// A name that is no CPU path's.
    #[error("unknown CPU path {name:?}; choose amx-bf16, amx, avx512, avx2 or portable")]
    UnknownCpuPath {
        /// What was given.
        name: String,
    },
    /// An argument has an element type that the op does not take.
    #[error("{op}: {argument} is {found:?}, but this op takes {expected:?} on this device; convert it with to_dtype")]
    ElementType {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument.
        argument: &'static str,
        /// What was given.
        found: DType,
        /// What the op takes.
        expected: DType,
    },
    /// An argument lives on a device without an implementation.
    #[error(
        "{op}: {argument} is on a device that this build has no kernels for; move it to the CPU with to_device, or on an \
         NVIDIA GPU build with the feature `cuda`"
    )]
    Device {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument.
        argument: &'static str,
    },
    /// Arguments of one op live on different devices.
    #[error("{op}: {argument} is on another device than the other arguments; move it with to_device")]
    DifferentDevice {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument.
        argument: &'static str,
    },
    /// The GPU has no room for a result.
    #[error(
        "out of GPU memory: {wanted_mib} MiB more are needed, {free_mib} of {total_mib} MiB are free; use a smaller batch"
    )]
    DeviceMemory {
        /// Size of the block that could not be had.
        wanted_mib: usize,
        /// Free memory of the device, all processes considered.
        free_mib: usize,
        /// Memory of the device.
        total_mib: usize,
    },
    /// The GPU cannot run these kernels, or cuDNN has no algorithm for a convolution.
    #[error("{op}: {problem}")]
    Gpu {
        /// Name of the op.
        op: &'static str,
        /// What cannot be done and why.
        problem: String,
    },
    /// An argument has the wrong shape.
    #[error("{op}: {argument} has shape {found:?}, expected {expected}")]
    ArgumentShape {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument.
        argument: &'static str,
        /// What was given.
        found: Shape,
        /// What the op takes, in words.
        expected: String,
    },
    /// A number or geometry outside the range the op accepts.
    #[error("{op}: {option} is {found}, expected {expected}")]
    OptionValue {
        /// Name of the op.
        op: &'static str,
        /// Name of the option.
        option: &'static str,
        /// What was given.
        found: String,
        /// What the op takes, in words.
        expected: String,
    },
    /// A label that names no class.
    #[error("{op}: label {label} of row {row} is not below the number of classes, {num_classes}")]
    Label {
        /// Name of the op.
        op: &'static str,
        /// Position in the batch.
        row: usize,
        /// The label found there.
        label: u32,
        /// Number of classes of the logits.
        num_classes: usize,
    },
    /// A tensor that is written in place but does not own a dense block.
    #[error(
        "{op}: {argument} is written in place and must be contiguous; keep parameters and their state as dense variables"
    )]
    NotContiguous {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument.
        argument: &'static str,
    },
    /// Two arguments have one block of memory, and the op writes at least one of them.
    #[error("{op}: {argument} shares its memory with another argument, and the op writes in place; copy it first")]
    Shared {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument.
        argument: &'static str,
    },
    /// Batch statistics of a single value per channel have no spread.
    #[error(
        "batch_norm_train: one value per channel in an input of shape {found:?}; use a batch of at least two, or batch_norm_eval"
    )]
    SingleValue {
        /// Shape of the input.
        found: Shape,
    },
}

/// Whether an error says that a GPU has no room, be it for one of our results or one of candle's.
pub fn is_out_of_device_memory(error: &candle_core::Error) -> bool {
    match error {
        candle_core::Error::Cuda(inner) => {
            let own = inner.downcast_ref::<KernelError>();
            let is_own = own.is_some_and(|error| matches!(error, KernelError::DeviceMemory { .. }));
            is_own || format!("{inner:?}").contains("CUDA_ERROR_OUT_OF_MEMORY")
        }
        candle_core::Error::WithBacktrace { inner, .. } => is_out_of_device_memory(inner),
        _ => false,
    }
}

impl From<KernelError> for candle_core::Error {
    fn from(error: KernelError) -> Self {
        // Not `Error::wrap`: that appends a backtrace to the text when RUST_BACKTRACE is set.
        Self::Wrapped(Box::new(error))
    }
}
