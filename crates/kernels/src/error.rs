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
    #[error("unknown CPU path {name:?}; choose amx-short, amx, avx512, avx2 or portable")]
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
        "{op}: {argument} is on a device other than the CPU, where this op has no implementation yet; move it with to_device"
    )]
    Device {
        /// Name of the op.
        op: &'static str,
        /// Name of the argument.
        argument: &'static str,
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
    /// Batch statistics of a single value per channel have no spread.
    #[error(
        "batch_norm_train: one value per channel in an input of shape {found:?}; use a batch of at least two, or batch_norm_eval"
    )]
    SingleValue {
        /// Shape of the input.
        found: Shape,
    },
}

impl From<KernelError> for candle_core::Error {
    fn from(error: KernelError) -> Self {
        // Not `Error::wrap`: that appends a backtrace to the text when RUST_BACKTRACE is set.
        Self::Wrapped(Box::new(error))
    }
}
