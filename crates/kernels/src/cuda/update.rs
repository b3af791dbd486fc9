use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::{DType, Result, Tensor};

use super::gpu::{Gpu, blocks};
use super::memory::{Fresh, address, address_or_null, start};
use crate::error::KernelError;
use crate::packed;
use crate::update::{AdamWRule, GradScale, Momentum};

const MODULE: &str = "update";

/// Elements that a block of threads moves, where a tensor is cut as it lies.
const CHUNK: usize = 4096;

/// Channels that a block of threads moves, of one filter, where one is cut that lies in two orders.
const CHANNELS: usize = 64;

/// What one parameter's update touches; the kernels' struct `Tensor`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    param: u64,
    grad: u64,
    first: u64,
    second: u64,
    shadow: u64,
    len: i64,
    lr: f32,
    weight_decay: f32,
    channels: i32,
    channels_padded: i32,
    taps: i32,
    gradient: i32,
}

/// Which part of which entry a block takes; the kernels' struct `Block`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Block {
    entry: i32,
    piece: i32,
}

// SAFETY: laid out as in `cuda/update.cu`: five pointers, a 64-bit integer, two floats, four ints.
unsafe impl DeviceRepr for Entry {}
// SAFETY: laid out as in `cuda/update.cu`: two ints.
unsafe impl DeviceRepr for Block {}

/// How a gradient lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lies {
    /// Dense and in f32.
    F32,
    /// Dense and in bf16.
    Bf16,
    /// In bf16 as a convolution makes it, `[k, kh, kw, c]` with so many channels in all.
    Packed { channels: usize },
}

impl Lies {
    /// How a tensor lies, if kernels take it so.
    pub(crate) fn of(tensor: &Tensor) -> Option<Self> {
        match (tensor.dtype(), tensor.is_contiguous()) {
            (DType::F32, true) => Some(Self::F32),
            (DType::BF16, true) => Some(Self::Bf16),
            (DType::BF16, false) => {
                let (&[_, _, kh, kw], &[filter, 1, row, channels]) = (tensor.dims(), tensor.stride()) else {
                    return None;
                };
                (row == kw * channels && filter == kh * row).then_some(Self::Packed { channels })
            }
            _ => None,
        }
    }

    /// The number that the kernels have for it.
    fn number(self) -> i32 {
        match self {
            Self::F32 => 0,
            Self::Bf16 => 1,
            Self::Packed { .. } => 2,
        }
    }
}

/// A parameter, its gradient, what the rule remembers of it, its learning rate and weight decay.
#[derive(Clone, Copy)]
pub(crate) struct Move<'a> {
    pub(crate) param: &'a Tensor,
    pub(crate) grad: &'a Tensor,
    pub(crate) memory: [Option<&'a Tensor>; 2],
    pub(crate) lr: f32,
    pub(crate) weight_decay: f32,
}

impl Move<'_> {
    fn entry(&self, op: &'static str) -> Result<Entry> {
        let memory = |at: usize| address_or_null(op, "state", self.memory[at]);
        let lies = lies(op, self.grad)?;
        let shadow = packed::kept(self.param);
        let entry = Entry {
            param: address(op, "param", self.param)?,
            grad: start(self.grad)?,
            first: memory(0)?,
            second: memory(1)?,
            shadow: address_or_null(op, "packed weights", shadow.as_ref())?,
            len: self.param.elem_count() as i64,
            lr: self.lr,
            weight_decay: self.weight_decay,
            gradient: lies.number(),
            ..Entry::default()
        };
        let of_gradient = match lies {
            Lies::Packed { channels } => Some(channels),
            Lies::F32 | Lies::Bf16 => None,
        };
        let of_shadow = shadow.as_ref().and_then(|shadow| shadow.dims().last().copied());
        let (Some(padded), &[_, own, kh, kw]) = (of_gradient.or(of_shadow), self.param.dims()) else {
            return Ok(entry);
        };
        if of_gradient.is_none() && kh * kw == 1 && padded == own {
            // Both orders are the same.
            return Ok(entry);
        }
        let [channels, channels_padded, taps] = [own, padded, kh * kw].map(|size| size as i32);
        Ok(Entry { channels, channels_padded, taps, ..entry })
    }
}

fn lies(op: &'static str, grad: &Tensor) -> Result<Lies> {
    Lies::of(grad).ok_or_else(|| KernelError::NotContiguous { op, argument: "grad" }.into())
}

/// One launch over a list.
struct Table {
    entries: Vec<Entry>,
    /// Blocks of each entry.
    pieces: Vec<usize>,
}

impl Table {
    /// Over all parameters of a list.
    fn of_moves(op: &'static str, moves: &[Move<'_>]) -> Result<Self> {
        let entries: Result<Vec<Entry>> = moves.iter().map(|step| step.entry(op)).collect();
        let (entries, len) = (entries?, |step: &Move<'_>| step.param.elem_count());
        let pieces = moves.iter().zip(&entries).map(|(step, entry)| match entry.taps {
            0 => len(step).div_ceil(CHUNK),
            _ => step.param.dims()[0] * (entry.channels_padded as usize).div_ceil(CHANNELS),
        });
        Ok(Self { pieces: pieces.collect(), entries })
    }

    /// Over the memory of gradients, in whatever order they lie; those that are packed have no padding.
    fn of_memory(op: &'static str, tensors: &[&Tensor]) -> Result<Self> {
        let (mut entries, mut pieces) = (Vec::new(), Vec::new());
        for tensor in tensors.iter().filter(|tensor| tensor.elem_count() > 0) {
            let lies = lies(op, tensor)?;
            let len = tensor.elem_count();
            let gradient = if lies == Lies::F32 { Lies::F32 } else { Lies::Bf16 }.number();
            entries.push(Entry { grad: start(tensor)?, len: len as i64, gradient, ..Entry::default() });
            pieces.push(len.div_ceil(CHUNK));
        }
        Ok(Self { entries, pieces })
    }

    fn num_blocks(&self) -> usize {
        self.pieces.iter().sum()
    }

    fn blocks(&self) -> Vec<Block> {
        let blocks = |(entry, &pieces): (usize, &usize)| {
            (0..pieces).map(move |piece| Block { entry: entry as i32, piece: piece as i32 })
        };
        self.pieces.iter().enumerate().flat_map(blocks).collect()
    }

    /// Queues a kernel over the table, with the arguments that follow it.
    fn launch(&self, gpu: &Gpu, kernel: &str, more: &[Argument]) -> Result<()> {
        let cut = self.blocks();
        if cut.is_empty() {
            return Ok(());
        }
        let function = gpu.function(MODULE, kernel)?;
        let num_blocks = cut.len();
        let (entries, cut) = (gpu.stream.clone_htod(&self.entries).w()?, gpu.stream.clone_htod(&cut).w()?);
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
pub(crate) fn sgd_all(op: &'static str, moves: &[Move<'_>], momentum: Momentum, scale: GradScale<'_>) -> Result<()> {
    let Some(gpu) = gpu_of(op, moves)? else { return Ok(()) };
    let (factor, kind) = match momentum {
        Momentum::None => (0.0, 0),
        Momentum::Heavy { momentum } => (momentum, 1),
        Momentum::Nesterov { momentum } => (momentum, 2),
    };
    let clipped = clipped(&gpu, op, scale)?;
    let at = clipped.as_ref().map_or(0, |clipped| clipped.address);
    let scale = [Argument::Float(scale.factor as f32), Argument::Address(at)];
    let more: Vec<Argument> = [Argument::Float(factor as f32), Argument::Int(kind)].into_iter().chain(scale).collect();
    Table::of_moves(op, moves)?.launch(&gpu, "sgd_multi", &more)
}

/// AdamW on all parameters in one launch; `memory` holds first and second moments.
pub(crate) fn adamw_all(op: &'static str, moves: &[Move<'_>], rule: AdamWRule, scale: GradScale<'_>) -> Result<()> {
    let Some(gpu) = gpu_of(op, moves)? else { return Ok(()) };
    let AdamWRule { beta1, beta2, eps, step } = rule;
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    let numbers = [1.0 - beta1, beta2, 1.0 - beta2, eps, correction(beta1), correction(beta2).sqrt(), scale.factor];
    let clipped = clipped(&gpu, op, scale)?;
    let at = clipped.as_ref().map_or(0, |clipped| clipped.address);
    let numbers = numbers.into_iter().map(|number| Argument::Float(number as f32));
    let more: Vec<Argument> = numbers.chain([Argument::Address(at)]).collect();
    Table::of_moves(op, moves)?.launch(&gpu, "adamw_multi", &more)
}

/// The scale of gradients that are clipped, worked out on the device; `None` where the host knows it.
fn clipped(gpu: &Gpu, op: &'static str, scale: GradScale<'_>) -> Result<Option<Fresh>> {
    let Some((clip, squares)) = scale.clip.and_then(|clip| Some((clip, clip.squares.on_gpu()?))) else {
        return Ok(None);
    };
    let (squares, result) = (address(op, "squares", squares)?, gpu.empty(DType::F32, ())?);
    let function = gpu.function(MODULE, "clip_scale")?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&squares).arg(&scale.factor).arg(&clip.max_norm).arg(&result.address);
    // SAFETY: the arguments are those of the kernel: a number in f64 and room for one in f32.
    unsafe { call.launch(blocks([1, 1, 1], [256, 1])) }.w()?;
    Ok(Some(result))
}

/// Moving averages, as `param`, towards parameters, as `grad`.
pub(crate) fn ema_all(op: &'static str, moves: &[Move<'_>], decay: f64) -> Result<()> {
    let Some(gpu) = gpu_of(op, moves)? else { return Ok(()) };
    let more = [Argument::Float(decay as f32), Argument::Float((1.0 - decay) as f32)];
    Table::of_moves(op, moves)?.launch(&gpu, "ema_multi", &more)
}

/// Sum of the squares of all elements, a scalar in f64; nothing of no tensors.
pub(crate) fn sum_of_squares(op: &'static str, tensors: &[&Tensor]) -> Result<Option<Tensor>> {
    let Some(first) = tensors.first() else { return Ok(None) };
    let gpu = Gpu::of(op, "tensors", first)?;
    let table = Table::of_memory(op, tensors)?;
    let (parts, sum) = (gpu.empty(DType::F64, table.num_blocks())?, gpu.empty(DType::F64, ())?);
    table.launch(&gpu, "squares_multi", &[Argument::Address(parts.address)])?;
    let function = gpu.function(MODULE, "squares_finish")?;
    let count = table.num_blocks() as i32;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&parts.address).arg(&count).arg(&sum.address);
    // SAFETY: the arguments are those of the kernel; `parts` has a number for each block of the table.
    unsafe { call.launch(blocks([1, 1, 1], [256, 1])) }.w()?;
    Ok(Some(sum.into_tensor()))
}
