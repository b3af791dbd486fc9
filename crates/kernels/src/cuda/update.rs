use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::{DType, Result, Tensor};

use super::gpu::{Gpu, blocks};
use super::memory::address;
use crate::update::{AdamWRule, Momentum};

const MODULE: &str = "update";

/// Elements that a block of threads moves.
const CHUNK: usize = 4096;

/// What one parameter's update touches; the kernels' struct `Tensor`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    param: u64,
    grad: u64,
    first: u64,
    second: u64,
    len: i64,
    lr: f32,
    weight_decay: f32,
}

/// Which part of which entry a block takes; the kernels' struct `Block`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Block {
    entry: i32,
    chunk: i32,
}

// SAFETY: laid out as in `cuda/update.cu`: four pointers, a 64-bit integer, two floats.
unsafe impl DeviceRepr for Entry {}
// SAFETY: laid out as in `cuda/update.cu`: two ints.
unsafe impl DeviceRepr for Block {}

/// A parameter, its gradient, what the rule remembers of it, its learning rate and weight decay.
#[derive(Clone, Copy)]
pub(crate) struct Move<'a> {
    pub(crate) param: &'a Tensor,
    pub(crate) grad: &'a Tensor,
    pub(crate) memory: [Option<&'a Tensor>; 2],
    pub(crate) lr: f32,
    pub(crate) weight_decay: f32,
}

/// One launch over all parameters of a list.
struct Table<'a> {
    moves: &'a [Move<'a>],
    op: &'static str,
}

impl Table<'_> {
    fn entries(&self) -> Result<Vec<Entry>> {
        let entry = |step: &Move<'_>| {
            let memory = |at: usize| {
                let tensor: Option<&Tensor> = step.memory[at];
                tensor.map_or(Ok(0), |tensor| address(self.op, "state", tensor))
            };
            Ok(Entry {
                param: address(self.op, "param", step.param)?,
                grad: address(self.op, "grad", step.grad)?,
                first: memory(0)?,
                second: memory(1)?,
                len: step.param.elem_count() as i64,
                lr: step.lr,
                weight_decay: step.weight_decay,
            })
        };
        self.moves.iter().map(entry).collect()
    }

    fn blocks(&self) -> Vec<Block> {
        let chunks = |(entry, step): (usize, &Move<'_>)| {
            let chunks = step.param.elem_count().div_ceil(CHUNK);
            (0..chunks).map(move |chunk| Block { entry: entry as i32, chunk: chunk as i32 })
        };
        self.moves.iter().enumerate().flat_map(chunks).collect()
    }

    /// Queues a kernel over the table, with the arguments that follow it.
    fn launch(&self, gpu: &Gpu, kernel: &str, more: &[Argument]) -> Result<()> {
        let (entries, cut) = (self.entries()?, self.blocks());
        if cut.is_empty() {
            return Ok(());
        }
        let function = gpu.function(MODULE, kernel)?;
        let num_blocks = cut.len();
        let (entries, cut) = (gpu.stream.clone_htod(&entries).w()?, gpu.stream.clone_htod(&cut).w()?);
        let mut call = gpu.stream.launch_builder(&function);
        call.arg(&entries).arg(&cut);
        for argument in more {
            match argument {
                Argument::Float(number) => call.arg(number),
                Argument::Int(number) => call.arg(number),
                Argument::Address(address) => call.arg(address),
            };
        }
        // SAFETY: the table holds addresses of tensors that are as long as it says, and callers add the arguments that
        // the kernel takes after it.
        unsafe { call.launch(blocks([num_blocks, 1, 1], [256, 1])) }.w()?;
        Ok(())
    }
}

/// What a kernel takes after the table.
enum Argument {
    Float(f32),
    Int(i32),
    Address(u64),
}

fn gpu_of(op: &'static str, moves: &[Move<'_>]) -> Result<Option<std::sync::Arc<Gpu>>> {
    moves.first().map(|first| Gpu::of(op, "param", first.param)).transpose()
}

/// SGD on all parameters in one launch; `memory` holds the momentum buffers.
pub(crate) fn sgd_all(op: &'static str, moves: &[Move<'_>], momentum: Momentum, grad_scale: f64) -> Result<()> {
    let Some(gpu) = gpu_of(op, moves)? else { return Ok(()) };
    let (factor, kind) = match momentum {
        Momentum::None => (0.0, 0),
        Momentum::Heavy { momentum } => (momentum, 1),
        Momentum::Nesterov { momentum } => (momentum, 2),
    };
    let more = [Argument::Float(factor as f32), Argument::Int(kind), Argument::Float(grad_scale as f32)];
    Table { moves, op }.launch(&gpu, "sgd_multi", &more)
}

/// AdamW on all parameters in one launch; `memory` holds first and second moments.
pub(crate) fn adamw_all(op: &'static str, moves: &[Move<'_>], rule: AdamWRule, grad_scale: f64) -> Result<()> {
    let Some(gpu) = gpu_of(op, moves)? else { return Ok(()) };
    let AdamWRule { beta1, beta2, eps, step } = rule;
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    let numbers = [1.0 - beta1, beta2, 1.0 - beta2, eps, correction(beta1), correction(beta2).sqrt(), grad_scale];
    let more = numbers.map(|number| Argument::Float(number as f32));
    Table { moves, op }.launch(&gpu, "adamw_multi", &more)
}

/// Moving averages, as `param`, towards parameters, as `grad`.
pub(crate) fn ema_all(op: &'static str, moves: &[Move<'_>], decay: f64) -> Result<()> {
    let Some(gpu) = gpu_of(op, moves)? else { return Ok(()) };
    let more = [Argument::Float(decay as f32), Argument::Float((1.0 - decay) as f32)];
    Table { moves, op }.launch(&gpu, "ema_multi", &more)
}

/// Sum of the squares of all elements of contiguous tensors, in f64. Waits for the device.
pub(crate) fn sum_of_squares(op: &'static str, tensors: &[&Tensor]) -> Result<f64> {
    let filled = tensors.iter().filter(|tensor| tensor.elem_count() > 0);
    let moves: Vec<Move<'_>> = filled
        .map(|&tensor| Move { param: tensor, grad: tensor, memory: [None; 2], lr: 0.0, weight_decay: 0.0 })
        .collect();
    let Some(gpu) = gpu_of(op, &moves)? else { return Ok(0.0) };
    let table = Table { moves: &moves, op };
    let num_parts = table.blocks().len();
    let (parts, sum) = (gpu.empty(DType::F64, num_parts)?, gpu.empty(DType::F64, ())?);
    table.launch(&gpu, "squares_multi", &[Argument::Address(parts.address)])?;
    let function = gpu.function(MODULE, "squares_finish")?;
    let count = num_parts as i32;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&parts.address).arg(&count).arg(&sum.address);
    // SAFETY: the arguments are those of the kernel; `parts` has a number for each block of the table.
    unsafe { call.launch(blocks([1, 1, 1], [256, 1])) }.w()?;
    sum.into_tensor().to_scalar::<f64>()
}
