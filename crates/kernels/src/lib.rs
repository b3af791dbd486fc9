//! The training ops that candle lacks, gets wrong or does slowly, each with a gradient that is right.
//!
//! **Owns** convolution, batch normalisation, pooling, the linear layer, ReLU, cross-entropy, the walk
//! back through them and the updates of optimizers, as functions on [`candle_core::Tensor`] that attach to candle's autograd.
//! **Does not know** models, training loops, data or files.
//!
//! Activations are channels-last, `[n, h, w, c]`; weights are `[c_out, c_in / groups, kh, kw]`.
//! Ops take f32 on the CPU, and with the feature `cuda` f32 or bf16 activations on an NVIDIA GPU; anything else is refused
//! by name. Every sum has an order that follows
//! from the shapes alone, so results are the same bits for any number of threads. Gradients come back
//! without history, and those that nobody asks for are not computed. [`Tensor::backward`](candle_core::Tensor::backward)
//! works on every op; [`backward`] does the same for less time and memory.
//!
//! Read in this order: [`ConvGeometry`] and [`conv2d`]; [`Epilogue`], [`batch_norm_train`] and
//! [`Running`]; [`PoolGeometry`] and the pools; [`linear`], [`relu`], [`flatten_chw`];
//! [`cross_entropy`]; [`backward`], [`backward_with`] and [`without_history`]; [`SgdStep`] and [`sgd_step`]; then what makes
//! whole steps lighter: [`norm_relu_conv2d`], [`backward_raw`], [`keep_packed_weights`], [`sgd_steps`] with [`GradScale`].
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use taper_kernels::{ConvGeometry, Epilogue, backward, batch_norm_train, conv2d, global_avg_pool};
//!
//! # fn main() -> candle_core::Result<()> {
//! let images = Tensor::rand(0f32, 1f32, (2, 8, 8, 3), &Device::Cpu)?;
//! let w = Var::rand(-0.2f32, 0.2f32, (4, 3, 3, 3), &Device::Cpu)?;
//! let (gamma, beta) = (Var::ones(4, w.dtype(), &Device::Cpu)?, Var::zeros(4, w.dtype(), &Device::Cpu)?);
//! let y = conv2d(&images, &w, None, &ConvGeometry::same(3))?;
//! let (y, statistics) = batch_norm_train(&y, &gamma, &beta, None, 1e-5, Epilogue::Relu)?;
//! assert_eq!(statistics.count, 2 * 8 * 8);
//! let gradients = backward(global_avg_pool(&y)?)?;
//! assert_eq!(gradients.get(&w).map(|gradient| gradient.dims()), Some(w.dims()));
//! # Ok(())
//! # }
//! ```
//!
//! The convolutions use the tile unit (AMX), AVX-512 or AVX2 where the processor has them, see [`CpuPath`]; nothing needs
//! to be switched on when building. [`reference`](mod@reference) holds the plain f64 versions that tests compare with.
//!
//! The feature `cuda` gives every op a path on NVIDIA GPUs: convolutions by cuDNN, own kernels (`cuda/*.cu`) for what
//! surrounds them. `gpu_device` opens one; tensors made there run there, and nothing waits for it but a number that goes
//! to the host, and trials of `measure_plans`. Parameters, statistics and gradients of parameters are f32 whatever the
//! activations are, but for those of `backward_raw`. On one device
//! and build the same inputs give the same bits. It needs nvcc to build, the driver and cuDNN 9 to run.
//!
//! Read `taper-models` next: it builds networks from these ops.

// The matrix products and vector loops need raw pointers; each block says why it is sound.
#![allow(unsafe_code)]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod batch_norm;
mod build;
mod conv;
#[cfg(feature = "cuda")]
mod cuda;
mod error;
mod flatten;
mod geometry;
mod graph;
mod in_place;
mod linear;
mod loss;
mod matrix;
mod memory;
mod norm_conv;
mod packed;
mod pool;
mod reduce;
pub mod reference;
mod relu;
mod scratch;
mod simd;
mod storage;
mod tile;
mod update;

pub use batch_norm::{BatchStatistics, Epilogue, Running, batch_norm_eval, batch_norm_train};
pub use conv::conv2d;
#[cfg(feature = "cuda")]
pub use cuda::{
    CropFlip, DescribedDevice, GpuDescription, GpuError, LayerShape, MeasuredPlan, PlanReport, add_measured_plans,
    describe_gpu, gpu_device, images_from_bytes, measure_plans, measured_plans, set_tf32, take_gpu_peak_bytes,
};
pub use error::{KernelError, is_out_of_device_memory};
pub use flatten::flatten_chw;
pub use geometry::{ConvGeometry, Padding, PoolGeometry, Rounding};
pub use graph::{backward, backward_raw, backward_with, consists_of_own_ops, without_history};
pub use linear::linear;
pub use loss::{cross_entropy, cross_entropy_soft};
pub use memory::prepare_allocator;
pub use norm_conv::{norm_relu_conv2d, set_recompute};
pub use packed::{PackedWeights, keep_packed_weights};
pub use pool::{avg_pool2d, global_avg_pool, max_pool2d};
pub use reduce::{SquareSum, sum_of_all_squares, sum_of_squares};
pub use relu::relu;
pub use simd::{CpuPath, cpu_path, set_cpu_path};
pub use update::{
    AdamWParam, AdamWRule, AdamWStep, Clip, GradScale, Momentum, SgdParam, SgdStep, adamw_step, adamw_steps, ema_step,
    ema_steps, sgd_step, sgd_steps,
};
