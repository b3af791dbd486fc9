//! What is held to the CPU without a gradient: updates of parameters, and images from bytes.

use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use taper_data::{ArrayDataset, ChannelStats, Compose, LastBatch, Loader, OnBad, Order, PadMode, Transform};
use taper_kernels::{
    AdamWParam, AdamWRule, Clip, CropFlip, GradScale, Momentum, SgdParam, SquareSum, adamw_steps, ema_steps,
    images_from_bytes, sgd_steps, sum_of_all_squares,
};

use taper_train::{ImageInput, Images, ResidentImages, Source as _};

use super::case::{error, home, values};
use super::noise::Noise;
use super::report::{Check, Report};

/// Rounding of a few operations in f32, which the devices may contract differently.
const TOLERANCE: f64 = 1e-6;

/// Sizes of the parameters: of a norm, a bias, a linear layer, a convolution; more and fewer than a block takes.
const SHAPES: [&[usize]; 5] = [&[1], &[50], &[37, 41], &[24, 16, 3, 3], &[130, 100]];

/// Parameters with gradients and two states, on one device.
struct Group {
    params: Vec<Var>,
    grads: Vec<Tensor>,
    states: [Vec<Var>; 2],
}

impl Group {
    /// Four tensors for each shape, from the same numbers on every device.
    fn on(device: &Device, numbers: &[[Tensor; 4]]) -> Result<Self> {
        let var = |at: usize| {
            let of = |tensors: &[Tensor; 4]| Ok(Var::from_tensor(&tensors[at].to_device(device)?)?);
            numbers.iter().map(of).collect::<Result<Vec<Var>>>()
        };
        let grads = numbers.iter().map(|tensors| Ok(tensors[1].to_device(device)?)).collect::<Result<_>>()?;
        Ok(Self { params: var(0)?, grads, states: [var(2)?, var(3)?] })
    }

    fn sgd(&self, momentum: Momentum) -> Result<()> {
        let tensors = self.params.iter().zip(&self.grads).zip(&self.states[0]);
        let param =
            |((param, grad), buffer): ((&'_ Var, _), &'_ Var)| (param.as_tensor().clone(), grad, buffer.clone());
        let owned: Vec<(Tensor, &Tensor, Var)> = tensors.map(param).collect();
        let params: Vec<SgdParam<'_>> = owned
            .iter()
            .map(|(param, grad, buffer)| SgdParam { param, grad, momentum_buffer: buffer, lr: 0.1, weight_decay: 5e-4 })
            .collect();
        Ok(sgd_steps(&params, momentum, 0.7)?)
    }

    fn adamw(&self, step: usize) -> Result<()> {
        let tensors = self.params.iter().zip(&self.grads).zip(self.states[0].iter().zip(&self.states[1]));
        let param = |((param, grad), (first, second))| AdamWParam {
            param: Var::as_tensor(param),
            grad,
            first_moment: Var::as_tensor(first),
            second_moment: Var::as_tensor(second),
            lr: 0.01,
            weight_decay: 0.05,
        };
        let params: Vec<AdamWParam<'_>> = tensors.map(param).collect();
        Ok(adamw_steps(&params, AdamWRule { beta1: 0.9, beta2: 0.999, eps: 1e-8, step }, 0.7)?)
    }

    fn ema(&self) -> Result<()> {
        let pairs: Vec<_> = self.states[0]
            .iter()
            .zip(&self.params)
            .map(|(average, param)| (average.as_tensor(), param.as_tensor()))
            .collect();
        Ok(ema_steps(&pairs, 0.99)?)
    }

    /// Parameters and states in turn.
    fn all(&self) -> impl Iterator<Item = &Var> {
        self.params.iter().chain(&self.states[0]).chain(&self.states[1])
    }
}

/// Three steps of every rule on both devices.
pub(super) fn updates(device: &Device, noise: &mut Noise, report: &mut Report) -> Result<()> {
    type Rule = (&'static str, fn(&Group, usize) -> Result<()>);

    let rules: [Rule; 5] = [
        ("sgd", |group, _| group.sgd(Momentum::None)),
        ("sgd with momentum", |group, _| group.sgd(Momentum::Heavy { momentum: 0.9 })),
        ("sgd with Nesterov momentum", |group, _| group.sgd(Momentum::Nesterov { momentum: 0.9 })),
        ("adamw", |group, step| group.adamw(step)),
        ("ema", |group, _| group.ema()),
    ];
    for (name, rule) in rules {
        let mut tensors = |shape: &&[usize]| {
            // The second state is a mean of squares, so it is not below 0.
            Ok([noise.tensor(shape)?, noise.tensor(shape)?, noise.tensor(shape)?, noise.positive(shape)?])
        };
        let numbers = SHAPES.iter().map(&mut tensors).collect::<Result<Vec<_>>>()?;
        let (expected, found) = (Group::on(&Device::Cpu, &numbers)?, Group::on(device, &numbers)?);
        for step in 1..=3 {
            rule(&expected, step)?;
            rule(&found, step)?;
        }
        let mut errors = Vec::new();
        for (index, (found, expected)) in found.all().zip(expected.all()).enumerate() {
            errors.push((format!("tensor {index}"), error(&home(found)?, expected)?, TOLERANCE));
        }
        report.add(Check::of(name.to_owned(), errors));
    }
    let own = SHAPES.iter().map(|shape| Ok(noise.tensor(shape)?)).collect::<Result<Vec<_>>>()?;
    let there = own.iter().map(|tensor| Ok(tensor.to_device(device)?)).collect::<Result<Vec<_>>>()?;
    let (expected, found) = (sum_of_all_squares(&own)?.wait()?, sum_of_all_squares(&there)?.wait()?);
    report.add(Check::of("sum of squares".to_owned(), vec![("sum".to_owned(), (found / expected - 1.0).abs(), 1e-12)]));
    Ok(())
}

/// A bound of the norm gives the same bits whether the host or the device knows the sum of squares.
pub(super) fn clipping(device: &Device, noise: &mut Noise, report: &mut Report) -> Result<()> {
    let (grad, before) = (noise.tensor(&[300])?, noise.tensor(&[300])?);
    let moved = |squares: &SquareSum| {
        let (param, grad) = (Var::from_tensor(&before.to_device(device)?)?, grad.to_device(device)?);
        let buffer = param.zeros_like()?;
        let step = SgdParam { param: &param, grad: &grad, momentum_buffer: &buffer, lr: 0.1, weight_decay: 0.0 };
        sgd_steps(&[step], Momentum::None, GradScale { factor: 0.5, clip: Some(Clip { squares, max_norm: 0.3 }) })?;
        values(&home(&param)?)
    };
    let (here, there) =
        (sum_of_all_squares(std::slice::from_ref(&grad))?, sum_of_all_squares(&[grad.to_device(device)?])?);
    let (found, expected) = (moved(&there)?, moved(&here)?);
    let differing = found.iter().zip(&expected).filter(|(a, b)| (**a - **b).abs() > 1e-7).count();
    let length =
        found.iter().zip(values(&before)?).map(|(after, before)| f64::from(after - before).powi(2)).sum::<f64>();
    let errors = vec![
        ("values that differ".to_owned(), differing as f64, 0.0),
        ("length of the step".to_owned(), (length.sqrt() / (0.1 * 0.3) - 1.0).abs(), 1e-4),
    ];
    report.add(Check::of("clipping".to_owned(), errors));
    Ok(())
}

/// Bytes cut, mirrored and normalised: the same bits as on the CPU.
pub(super) fn images(device: &Device, noise: &mut Noise, report: &mut Report) -> Result<()> {
    let [count, side] = [5, 12];
    let bytes: Vec<u8> = (0..count * side * side * 3).map(|_| (noise.next() >> 56) as u8).collect();
    let crops: Vec<CropFlip> = (0..2 * count)
        .map(|_| {
            let [x, y, flip, image] = [9, 9, 2, count as u64].map(|bound| (noise.next() % bound) as i32);
            CropFlip { x: x - 4, y: y - 4, flip, image }
        })
        .collect();
    let (scale, offset) = ([0.017, 0.018, 0.019], [2.1, 2.0, 1.8]);
    let tensor = Tensor::from_slice(&bytes, (count, side, side, 3), device)?;
    for (name, crops) in [("images as they are", &[][..]), ("images cut and mirrored", &crops[..])] {
        let found = home(&images_from_bytes(&tensor, crops, [side; 2], (scale, offset), DType::F32)?)?;
        let expected = expected_images(&bytes, [count, side], crops, (scale, offset));
        let differing = values(&found)?.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        report.add(Check::of(name.to_owned(), vec![("values that differ".to_owned(), differing as f64, 0.0)]));
    }
    Ok(())
}

/// An epoch from a data set that lies on the GPU: the same bits as one whose batches come from the host.
pub(super) fn resident_images(device: &Device, noise: &mut Noise, report: &mut Report) -> Result<()> {
    let (len, size) = (37, [10, 12]);
    let pixels = (0..len * size[0] * size[1] * 3).map(|_| (noise.next() >> 56) as u8).collect();
    let names = (0..len).map(|index| index.to_string()).collect();
    let set = ArrayDataset::new(size, pixels, vec![0; len], names, vec!["all".to_owned()])?;
    let crop = Transform::RandomCrop { size: [9, 11], padding: 3, mode: PadMode::Zero };
    let loader = Loader {
        dataset: Arc::new(set),
        indices: (2..len).collect(),
        transform: Compose(vec![crop, Transform::HorizontalFlip { probability: 0.5 }]),
        batch_size: 8,
        workers: 0,
        prefetch: 1,
        last: LastBatch::Keep,
        bad: OnBad::Fail,
        seed: noise.next(),
    };
    let stats = ChannelStats { mean: [0.5, 0.4, 0.3], std: [0.2, 0.3, 0.4] };
    let input = ImageInput { stats, device: device.clone(), dtype: DType::F32 };
    let on_host = Images { loader, input };
    let Some(resident) = ResidentImages::new(on_host.clone())? else { bail!("the set does not become resident") };
    let order = Order::Shuffled { seed: noise.next(), epoch: 3 };
    let mut differing = 0;
    for (found, expected) in resident.epoch_from(order, 1).zip(on_host.epoch_from(order, 1)) {
        let (found, expected) = (found?, expected?);
        let pairs = values(&found.inputs)?.into_iter().zip(values(&expected.inputs)?);
        differing += pairs.filter(|(found, expected)| found.to_bits() != expected.to_bits()).count();
        differing += usize::from(found.indices != expected.indices || found.labels != expected.labels);
    }
    report
        .add(Check::of("images that stay".to_owned(), vec![("values that differ".to_owned(), differing as f64, 0.0)]));
    Ok(())
}

fn expected_images(
    bytes: &[u8],
    [count, side]: [usize; 2],
    crops: &[CropFlip],
    (scale, offset): ([f32; 3], [f32; 3]),
) -> Vec<f32> {
    let mut images = Vec::with_capacity(bytes.len());
    let whole: Vec<CropFlip> =
        (0..count).map(|image| CropFlip { image: image as i32, ..CropFlip::default() }).collect();
    for crop in if crops.is_empty() { &whole } else { crops } {
        for row in 0..side as i32 {
            for column in 0..side as i32 {
                let column = if crop.flip == 1 { side as i32 - 1 - column } else { column };
                let (y, x) = (row + crop.y, column + crop.x);
                let is_inside = (0..side as i32).contains(&y) && (0..side as i32).contains(&x);
                for channel in 0..3 {
                    let at =
                        ((crop.image as usize * side + y.max(0) as usize) * side + x.max(0) as usize) * 3 + channel;
                    let byte = if is_inside { bytes[at] } else { 0 };
                    images.push(f32::from(byte) * scale[channel] - offset[channel]);
                }
            }
        }
    }
    images
}
