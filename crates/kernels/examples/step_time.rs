//! Times each op, then whole training steps of a BaseNet-shaped network, and prints milliseconds.
//!
//! Arguments, all optional: width (default 0.125), batch (default 64), steps (default 3).

#![allow(clippy::print_stdout)] // Printing is what a timing example is for.

use std::time::Instant;

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use taper_kernels::{
    ConvGeometry, Epilogue, Momentum, PoolGeometry, SgdStep, backward, batch_norm_train, conv2d, cross_entropy,
    flatten_chw, keep_freed_memory, linear, max_pool2d, relu, sgd_step,
};

fn main() -> Result<()> {
    keep_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let width: f64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(0.125);
    let batch: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(64);
    let steps: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    let channels = |full: f64| ((full * width) as usize).max(1);
    let pairs = [(3.0 / width, 64.0), (64.0, 64.0), (64.0, 128.0), (128.0, 128.0), (128.0, 256.0), (256.0, 256.0)];
    for (c_in, c_out) in pairs.into_iter().chain([(256.0, 512.0), (512.0, 512.0)]) {
        time_conv(batch, channels(c_in), channels(c_out), 3)?;
    }
    time_conv(batch, channels(256.0), channels(512.0), 1)?;
    time_batch_norm(batch, channels(512.0))?;
    time_pool(batch, channels(512.0))?;
    time_steps(&Network::new(width)?, batch, steps)
}

fn variable(shape: &[usize], fan_in: usize) -> Result<Var> {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Var::from_tensor(&Tensor::rand(-bound as f32, bound as f32, shape, &Device::Cpu)?)
}

/// Smallest of a few runs, in milliseconds: the least disturbed one.
fn best<R>(mut work: impl FnMut() -> Result<R>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}

fn time_conv(batch: usize, c_in: usize, c_out: usize, kernel: usize) -> Result<()> {
    let geometry = ConvGeometry::same(kernel);
    let x = variable(&[batch, 32, 32, c_in], 1)?;
    let w = variable(&[c_out, c_in, kernel, kernel], c_in * kernel * kernel)?;
    let (frozen_x, frozen_w) = (x.as_detached_tensor(), w.as_detached_tensor());
    let forward = best(|| conv2d(&frozen_x, &frozen_w, None, &geometry))?;
    let y = conv2d(&x, &frozen_w, None, &geometry)?;
    let dx = best(|| y.backward())?;
    let y = conv2d(&frozen_x, &w, None, &geometry)?;
    let dw = best(|| y.backward())?;
    let flops = 2.0 * (batch * 32 * 32 * c_in * c_out * kernel * kernel) as f64;
    let rate = |milliseconds: f64| flops / milliseconds / 1e6;
    println!(
        "conv {kernel}x{kernel} {c_in:3}->{c_out:3}  forward {forward:6.2} ms {:5.1} GFLOP/s  dx {dx:6.2} ms {:5.1}  dw {dw:6.2} ms {:5.1}",
        rate(forward),
        rate(dx),
        rate(dw),
    );
    Ok(())
}

fn time_batch_norm(batch: usize, channels: usize) -> Result<()> {
    let x = variable(&[batch, 32, 32, channels], 1)?;
    let shortcut = variable(&[batch, 32, 32, channels], 1)?;
    let (gamma, beta) = (variable(&[channels], 1)?, variable(&[channels], 1)?);
    for (name, epilogue) in
        [("relu", Epilogue::Relu), ("relu-scale-add", Epilogue::ReluScaleAdd { scale: 0.1, shortcut: &shortcut })]
    {
        let forward = best(|| batch_norm_train(&x, &gamma, &beta, 1e-5, epilogue))?;
        let (y, _) = batch_norm_train(&x, &gamma, &beta, 1e-5, epilogue)?;
        let backward = best(|| y.backward())?;
        println!("batch norm {name} c={channels}  forward {forward:.2} ms  backward {backward:.2} ms");
    }
    Ok(())
}

fn time_pool(batch: usize, channels: usize) -> Result<()> {
    let x = variable(&[batch, 32, 32, channels], 1)?;
    let forward = best(|| max_pool2d(&x, &PoolGeometry::square(2)))?;
    let y = max_pool2d(&x, &PoolGeometry::square(2))?;
    let backward = best(|| y.backward())?;
    println!("max pool 2x2 c={channels}  forward {forward:.2} ms  backward {backward:.2} ms");
    let x = variable(&[batch, channels * 256], 1)?;
    let w = variable(&[50, channels * 256], channels * 256)?;
    let forward = best(|| linear(&x, &w, None))?;
    let y = linear(&x, &w, None)?;
    let backward = best(|| y.backward())?;
    println!("linear {}->50  forward {forward:.2} ms  backward {backward:.2} ms", channels * 256);
    Ok(())
}

struct Norm {
    gamma: Var,
    beta: Var,
    buffers: [Tensor; 2],
}

struct Block {
    conv1: Var,
    norm1: Norm,
    conv2: Var,
    norm2: Norm,
    shortcut: Option<Var>,
}

struct Network {
    stem: Var,
    stem_norm: Norm,
    blocks: Vec<Block>,
    dense1: [Var; 2],
    dense2: [Var; 2],
    head_norm: Norm,
}

impl Norm {
    fn new(channels: usize) -> Result<Self> {
        let (gamma, beta) = (Tensor::ones(channels, candle_core::DType::F32, &Device::Cpu)?, variable(&[channels], 4)?);
        let buffers = [gamma.zeros_like()?, gamma.copy()?];
        Ok(Self { gamma: Var::from_tensor(&gamma)?, beta, buffers })
    }

    fn forward(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let (y, statistics) = batch_norm_train(x, &self.gamma, &self.beta, 1e-5, epilogue)?;
        statistics.update_running(&self.buffers[0], &self.buffers[1], 0.1)?;
        Ok(y)
    }
}

impl Network {
    fn new(width: f64) -> Result<Self> {
        let channels = |full: usize| ((full as f64 * width) as usize).max(1);
        let conv = |c_in: usize, c_out: usize, k: usize| variable(&[c_out, c_in, k, k], c_in * k * k);
        let mut blocks = Vec::new();
        let mut c_in = channels(64);
        let stem = (conv(3, c_in, 3)?, Norm::new(c_in)?);
        for (full, depth) in [(64, 3), (128, 4), (256, 6), (512, 3)] {
            for _ in 0..depth {
                let c = channels(full);
                let shortcut = if c == c_in { None } else { Some(conv(c_in, c, 1)?) };
                let (conv1, conv2) = (conv(c_in, c, 3)?, conv(c, c, 3)?);
                blocks.push(Block { conv1, norm1: Norm::new(c)?, conv2, norm2: Norm::new(c)?, shortcut });
                c_in = c;
            }
        }
        let inner = c_in * 16 * 16;
        let dense1 = [variable(&[50, inner], inner)?, variable(&[50], inner)?];
        let dense2 = [variable(&[100, 50], 50)?, variable(&[100], 50)?];
        Ok(Self { stem: stem.0, stem_norm: stem.1, blocks, dense1, dense2, head_norm: Norm::new(100)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let same = ConvGeometry::same(3);
        let mut x = self.stem_norm.forward(&conv2d(x, &self.stem, None, &same)?, Epilogue::Relu)?;
        for block in &self.blocks {
            let f = block.norm1.forward(&conv2d(&x, &block.conv1, None, &same)?, Epilogue::Relu)?;
            let f = conv2d(&f, &block.conv2, None, &same)?;
            let shortcut = match &block.shortcut {
                None => x,
                Some(w) => conv2d(&x, w, None, &ConvGeometry::default())?,
            };
            x = block.norm2.forward(&f, Epilogue::ReluScaleAdd { scale: 0.1, shortcut: &shortcut })?;
        }
        let x = flatten_chw(&max_pool2d(&x, &PoolGeometry::square(2))?)?;
        let x = relu(&linear(&x, &self.dense1[0], Some(&self.dense1[1]))?)?;
        self.head_norm.forward(&linear(&x, &self.dense2[0], Some(&self.dense2[1]))?, Epilogue::Identity)
    }

    fn parameters(&self) -> Vec<&Var> {
        let mut all = vec![&self.stem];
        all.extend(self.dense1.iter().chain(&self.dense2));
        let norms = self.blocks.iter().flat_map(|block| [&block.norm1, &block.norm2]);
        all.extend(norms.chain([&self.stem_norm, &self.head_norm]).flat_map(|norm| [&norm.gamma, &norm.beta]));
        for block in &self.blocks {
            all.extend([&block.conv1, &block.conv2].into_iter().chain(block.shortcut.as_ref()));
        }
        all
    }
}

fn update(parameters: &[&Var], buffers: &[Tensor], gradients: &GradStore) -> Result<()> {
    let step = SgdStep { lr: 0.01, momentum: Momentum::Nesterov { momentum: 0.9 }, weight_decay: 5e-4 };
    for (parameter, buffer) in parameters.iter().zip(buffers) {
        if let Some(gradient) = gradients.get(parameter) {
            sgd_step(parameter, gradient, buffer, step)?;
        }
    }
    Ok(())
}

fn time_steps(network: &Network, batch: usize, steps: usize) -> Result<()> {
    let x = Tensor::randn(0f32, 1f32, (batch, 32, 32, 3), &Device::Cpu)?;
    let labels: Vec<u32> = (0..batch as u32).map(|index| index % 100).collect();
    let labels = Tensor::from_vec(labels, batch, &Device::Cpu)?;
    let parameters = network.parameters();
    let buffers = parameters.iter().map(|parameter| parameter.zeros_like()).collect::<Result<Vec<_>>>()?;
    let mut seconds = Vec::new();
    for step in 0..=steps {
        let start = Instant::now();
        let loss = cross_entropy(&network.forward(&x)?, &labels, 0.0)?;
        let forward = start.elapsed();
        let value = loss.to_scalar::<f32>()?;
        let gradients = backward(loss)?;
        let backward = start.elapsed() - forward;
        update(&parameters, &buffers, &gradients)?;
        println!(
            "step {step} loss {value:.4} forward {forward:.1?} backward {backward:.1?} all {:.1?}",
            start.elapsed()
        );
        if step > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    println!("median {:.1} images/s", batch as f64 / seconds[seconds.len() / 2]);
    Ok(())
}
