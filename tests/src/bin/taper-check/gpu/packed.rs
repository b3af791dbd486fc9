//! Weights that convolutions keep, and gradients that are left as they were made: steps give the same bits as without.

use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use taper_kernels::{
    ConvGeometry, backward, backward_raw, conv2d, cross_entropy, global_avg_pool, keep_packed_weights,
};
use taper_optim::{AdamWConfig, Gradients, GroupRules, Optimizer, OptimizerConfig, ParameterSet, SgdConfig};

use super::case::values;
use super::noise::Noise;
use super::report::{Check, Report};

/// Channels in and out, side of the window: padded and not, more than a block takes, in one order and in two.
const SHAPES: [[usize; 3]; 5] = [[3, 8, 7], [8, 70, 3], [70, 72, 3], [72, 16, 1], [16, 5, 1]];

/// Whether weights are kept and gradients left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Packed,
}

/// A chain of convolutions, the last one's output pooled to logits, after three steps.
fn trained(way: Way, config: &OptimizerConfig, [weights, images]: [&[Tensor]; 2], device: &Device) -> Result<Vec<f32>> {
    let (vars, mut chain) = (VarMap::new(), Vec::new());
    for (at, (weights, [_, _, side])) in weights.iter().zip(SHAPES).enumerate() {
        let weights = Var::from_tensor(&weights.to_device(device)?)?;
        if let Ok(mut named) = vars.data().lock() {
            named.insert(format!("conv{at}.weight"), weights.clone());
        }
        chain.push((weights, ConvGeometry::same(side)));
    }
    let mut optimizer = Optimizer::new(config, ParameterSet::new(&vars, &GroupRules::new(config))?)?;
    let labels = Tensor::new(&[0u32, 4, 2], device)?;
    let packed = (way == Way::Packed).then(keep_packed_weights);
    for images in images {
        let mut features = images.to_device(device)?.to_dtype(DType::BF16)?;
        for (weights, geometry) in &chain {
            features = conv2d(&features, weights, None, geometry)?;
        }
        let loss = cross_entropy(&global_avg_pool(&features)?, &labels, 0.0)?;
        drop(features);
        let store = if way == Way::Packed { backward_raw(loss)? } else { backward(loss)? };
        let mut gradients = Gradients::take(optimizer.parameters(), &store)?;
        gradients.scale(0.7);
        optimizer.step(&gradients, 0.05)?;
    }
    drop(packed);
    chain.iter().map(|(weights, _)| values(weights)).collect::<Result<Vec<_>>>().map(|all| all.concat())
}

pub(super) fn compare(device: &Device, noise: &mut Noise, report: &mut Report) -> Result<()> {
    let weights: Vec<Tensor> = SHAPES
        .iter()
        .map(|&[c_in, c_out, side]| {
            let bound = 2.0 / ((c_in * side * side) as f64).sqrt();
            noise.tensor(&[c_out, c_in, side, side])?.affine(bound, 0.0)
        })
        .collect::<candle_core::Result<_>>()?;
    let images = (0..3).map(|_| noise.tensor(&[3, 9, 9, 3])).collect::<candle_core::Result<Vec<_>>>()?;
    let sgd = OptimizerConfig::Sgd(SgdConfig { nesterov: true, weight_decay: 1e-3, ..SgdConfig::default() });
    for (name, config) in [("SGD", sgd), ("AdamW", OptimizerConfig::AdamW(AdamWConfig::default()))] {
        let plain = trained(Way::Plain, &config, [&weights, &images], device)?;
        let packed = trained(Way::Packed, &config, [&weights, &images], device)?;
        let differing = plain.iter().zip(&packed).filter(|(plain, packed)| plain.to_bits() != packed.to_bits()).count();
        let unmoved = weights.iter().map(values).collect::<Result<Vec<_>>>()?.concat() == packed;
        let errors = vec![
            ("weights that differ".to_owned(), differing as f64, 0.0),
            ("steps that move nothing".to_owned(), f64::from(u8::from(unmoved)), 0.0),
        ];
        report.add(Check::of(format!("{name} on packed weights"), errors));
    }
    Ok(())
}
