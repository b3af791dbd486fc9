//! The ops on NVIDIA GPUs: cuDNN for convolutions, own kernels (`cuda/*.cu`) for what surrounds them.
//!
//! An op checks its arguments where the CPU's does, then comes here. [`gpu`] holds what a device needs beside candle:
//! loaded kernels, cuDNN and its plans, a workspace. Everything is queued on candle's one stream, in which freed memory
//! is handed out again in order, so addresses stay good as long as the launch that reads them was queued before the
//! tensor was dropped. Nothing here waits for the device, except where a number goes to the host and where plans are timed.

mod batch_norm;
mod conv;
mod dnn;
mod elementwise;
mod folded;
mod gpu;
mod images;
mod linear;
mod loss;
mod memory;
mod pool;
mod rows;
mod runtime;
mod update;

pub(crate) use batch_norm::{Normalisation, batch_norm, batch_norm_parameters, batch_norm_statistics};
pub(crate) use conv::{conv2d, convolution};
pub use dnn::{
    DescribedDevice, LayerShape, MeasuredPlan, PlanReport, add_measured_plans, measure_plans, measured_plans, set_tf32,
};
pub(crate) use elementwise::{fill, flatten_chw, plus, plus_assign, relu};
pub use images::{CropFlip, images_from_bytes};
pub(crate) use linear::linear;
pub(crate) use loss::{Goal, cross_entropy};
pub(crate) use pool::{avg_pool2d, global_avg_pool, max_pool2d};
pub use runtime::{GpuDescription, GpuError, describe_gpu, gpu_device, take_gpu_peak_bytes};
pub(crate) use update::{Lies, Move, adamw_all, ema_all, sgd_all, sum_of_squares};
