//! The peer in stock candle: BaseNet of `candle_nn`'s layers, candle's autograd, and SGD from tensor operations.
//!
//! This is how a candle user would write it. candle has no SGD with momentum, so that one is written out.

use anyhow::{Result, bail};
use candle_core::{DType, Device, ModuleT, Tensor, Var};
use candle_nn::{
    BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Linear, Module, VarBuilder, VarMap, batch_norm, conv2d_no_bias,
    linear,
};

use crate::network::{Model, Workload};
use crate::step::{LR, MOMENTUM, Step, WEIGHT_DECAY};

/// Forward, loss, backward, update on a device, all of it in one type.
pub(crate) fn training(workload: &Workload, dtype: DType, device: &Device) -> Result<Step> {
    let vars = VarMap::new();
    let network = build(workload, VarBuilder::from_varmap(&vars, dtype, device))?;
    let images = channels_first(workload)?.to_dtype(dtype)?.to_device(device)?;
    let labels = workload.labels()?.to_device(device)?;
    let mut sgd = Sgd::new(&vars)?;
    Ok(Box::new(move || {
        let loss = candle_nn::loss::cross_entropy(&network.forward_t(&images, true)?, &labels)?;
        let gradients = loss.backward()?;
        sgd.step(&gradients)?;
        Ok(loss.to_dtype(DType::F32)?.to_scalar()?)
    }))
}

/// Forward and loss.
pub(crate) fn evaluation(workload: &Workload) -> Result<Step> {
    let network = build(workload, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu))?;
    let (images, labels) = (channels_first(workload)?, workload.labels()?);
    Ok(Box::new(move || Ok(candle_nn::loss::cross_entropy(&network.forward_t(&images, false)?, &labels)?.to_scalar()?)))
}

fn channels_first(workload: &Workload) -> Result<Tensor> {
    Ok(workload.images()?.permute((0, 3, 1, 2))?.contiguous()?)
}

fn build(workload: &Workload, vb: VarBuilder) -> Result<BaseNet> {
    match workload.model {
        Model::BaseNet => Ok(BaseNet::new(workload, vb)?),
        other => bail!("--peer candle has no {other}, only basenet"),
    }
}

struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    shortcut: Option<Conv2d>,
    residual_scale: f64,
}

impl Block {
    fn new(c_in: usize, c_out: usize, residual_scale: f64, vb: VarBuilder) -> candle_core::Result<Self> {
        let shortcut = match c_in == c_out {
            true => None,
            false => Some(conv2d_no_bias(c_in, c_out, 1, Conv2dConfig::default(), vb.pp("shortcut"))?),
        };
        Ok(Self {
            conv1: conv3x3(c_in, c_out, vb.pp("conv1"))?,
            bn1: batch_norm(c_out, BatchNormConfig::default(), vb.pp("bn1"))?,
            conv2: conv3x3(c_out, c_out, vb.pp("conv2"))?,
            bn2: batch_norm(c_out, BatchNormConfig::default(), vb.pp("bn2"))?,
            shortcut,
            residual_scale,
        })
    }
}

impl ModuleT for Block {
    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let y = self.bn1.forward_t(&self.conv1.forward(x)?, train)?.relu()?;
        let y = self.bn2.forward_t(&self.conv2.forward(&y)?, train)?.relu()?;
        let shortcut = self.shortcut.as_ref().map_or_else(|| Ok(x.clone()), |conv| conv.forward(x))?;
        shortcut + (y * self.residual_scale)?
    }
}

struct BaseNet {
    stem_conv: Conv2d,
    stem_bn: BatchNorm,
    blocks: Vec<Block>,
    fc1: Linear,
    fc2: Linear,
    head_bn: BatchNorm,
}

impl BaseNet {
    fn new(workload: &Workload, vb: VarBuilder) -> candle_core::Result<Self> {
        let config = workload.basenet();
        let [stem, stages @ ..] = config.channels();
        let (mut blocks, mut c_in) = (Vec::new(), stem);
        for (stage, (c_out, depth)) in stages.into_iter().zip(config.depths).enumerate() {
            for index in 0..depth {
                blocks.push(Block::new(c_in, c_out, config.residual_scale, vb.pp("stages").pp(stage).pp(index))?);
                c_in = c_out;
            }
        }
        let inputs = c_in * (config.input_size / 2).pow(2);
        let (units, num_classes, head) = (50, workload.num_classes(), vb.pp("head"));
        Ok(Self {
            stem_conv: conv3x3(3, stem, vb.pp("stem").pp("conv"))?,
            stem_bn: batch_norm(stem, BatchNormConfig::default(), vb.pp("stem").pp("bn"))?,
            blocks,
            fc1: linear(inputs, units, head.pp("fc1"))?,
            fc2: linear(units, num_classes, head.pp("fc2"))?,
            head_bn: batch_norm(num_classes, BatchNormConfig::default(), head.pp("bn"))?,
        })
    }
}

impl ModuleT for BaseNet {
    /// `[n, 3, h, w]` → logits `[n, num_classes]`.
    fn forward_t(&self, images: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let stem = self.stem_bn.forward_t(&self.stem_conv.forward(images)?, train)?.relu()?;
        let features = self.blocks.iter().try_fold(stem, |features, block| block.forward_t(&features, train))?;
        let flat = features.max_pool2d(2)?.flatten_from(1)?;
        let hidden = self.fc1.forward(&flat)?.relu()?;
        self.head_bn.forward_t(&self.fc2.forward(&hidden)?, train)
    }
}

fn conv3x3(c_in: usize, c_out: usize, vb: VarBuilder) -> candle_core::Result<Conv2d> {
    conv2d_no_bias(c_in, c_out, 3, Conv2dConfig { padding: 1, ..Conv2dConfig::default() }, vb)
}

/// SGD with Nesterov momentum and coupled weight decay, as PyTorch's.
struct Sgd {
    parameters: Vec<(Var, Tensor)>,
}

impl Sgd {
    fn new(vars: &VarMap) -> candle_core::Result<Self> {
        let with_momentum = |var: Var| {
            let momentum = var.zeros_like()?;
            Ok((var, momentum))
        };
        let parameters: candle_core::Result<_> = vars.all_vars().into_iter().map(with_momentum).collect();
        Ok(Self { parameters: parameters? })
    }

    /// Running statistics have no gradient and stay as they are.
    fn step(&mut self, gradients: &candle_core::backprop::GradStore) -> candle_core::Result<()> {
        for (var, momentum) in &mut self.parameters {
            let Some(gradient) = gradients.get(var) else { continue };
            let value = var.as_detached_tensor();
            // candle's gradients carry the graph that made them.
            let gradient = (gradient.detach() + (&value * WEIGHT_DECAY)?)?;
            *momentum = ((&*momentum * MOMENTUM)? + &gradient)?;
            let step = (gradient + (&*momentum * MOMENTUM)?)?;
            var.set(&(value - (step * LR)?)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Sgd;
    use candle_core::{Device, Tensor, Var};
    use candle_nn::VarMap;

    use crate::step::{LR, MOMENTUM, WEIGHT_DECAY};

    /// Two steps on `loss = 3·w`, against the same worked out in f64.
    #[test]
    fn sgd_is_nesterov_with_coupled_decay() {
        let vars = VarMap::new();
        let var = Var::from_tensor(&Tensor::new(&[2f32], &Device::Cpu).unwrap()).unwrap();
        vars.data().lock().unwrap().insert("w".to_owned(), var.clone());
        let mut sgd = Sgd::new(&vars).unwrap();
        let (mut expected, mut momentum) = (2.0, 0.0);
        for _ in 0..2 {
            let loss = (var.as_tensor() * 3.0).unwrap().sum_all().unwrap();
            sgd.step(&loss.backward().unwrap()).unwrap();
            let gradient = 3.0 + WEIGHT_DECAY * expected;
            momentum = MOMENTUM * momentum + gradient;
            expected -= LR * (gradient + MOMENTUM * momentum);
        }
        let found = f64::from(var.to_vec1::<f32>().unwrap()[0]);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}
