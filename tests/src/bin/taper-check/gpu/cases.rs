use candle_core::{Result, Tensor};
use taper_kernels::{
    ConvGeometry, Epilogue, Padding, PoolGeometry, avg_pool2d, batch_norm_eval, batch_norm_train, conv2d,
    cross_entropy, cross_entropy_soft, flatten_chw, global_avg_pool, linear, max_pool2d, relu,
};

use super::case::{Case, Role};
use super::noise::Noise;

/// Every differentiable op, at sizes that are odd where they may be.
pub(super) fn all(noise: &mut Noise) -> Result<Vec<Case>> {
    let mut cases = convolutions(noise)?;
    cases.extend(first_layers(noise)?);
    cases.push(residual(noise)?);
    cases.extend(batch_norms(noise)?);
    cases.extend(pools(noise)?);
    cases.extend(dense(noise)?);
    Ok(cases)
}

fn activation(tensor: Tensor) -> (Role, Tensor) {
    (Role::Activation, tensor)
}

fn parameter(tensor: Tensor) -> (Role, Tensor) {
    (Role::Parameter, tensor)
}

fn convolutions(noise: &mut Noise) -> Result<Vec<Case>> {
    let geometry = |stride, padding, dilation, groups| ConvGeometry {
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: [dilation; 2],
        groups,
    };
    // Name, image side, channels in and out, side of the window, geometry, bias.
    let sizes = [
        ("3x3", 9, [8, 16], 3, geometry(1, 1, 1, 1), false),
        ("3x3 of 3 channels", 10, [3, 8], 3, geometry(1, 1, 1, 1), false),
        ("3x3 stride 2", 9, [16, 24], 3, geometry(2, 1, 1, 1), false),
        ("1x1 with bias", 7, [16, 8], 1, geometry(1, 0, 1, 1), true),
        ("1x1 stride 2", 8, [8, 16], 1, geometry(2, 0, 1, 1), false),
        ("7x7 stride 2 of 3 channels", 17, [3, 8], 7, geometry(2, 3, 1, 1), false),
        ("3x3 dilated", 11, [8, 8], 3, geometry(1, 2, 2, 1), false),
        ("3x3 in 2 groups", 8, [16, 32], 3, geometry(1, 1, 1, 2), false),
    ];
    let mut cases = Vec::new();
    for (name, side, [c_in, c_out], kernel, geometry, has_bias) in sizes {
        let group_in = c_in / geometry.groups;
        let mut inputs = vec![
            activation(noise.tensor(&[3, side, side + 2, c_in])?),
            parameter(noise.tensor(&[c_out, group_in, kernel, kernel])?),
        ];
        if has_bias {
            inputs.push(parameter(noise.tensor(&[c_out])?));
        }
        let op = move |inputs: &[Tensor]| conv2d(&inputs[0], &inputs[1], inputs.get(2), &geometry);
        cases.push(Case { name: format!("conv2d {name}"), inputs, op: Box::new(op) });
    }
    Ok(cases)
}

/// Convolutions of images, which step by two over few channels.
fn first_layers(noise: &mut Noise) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (channels, kernel, padding, side) in [(3, 7, 3, 16), (3, 3, 1, 9), (4, 5, 2, 12), (1, 2, 0, 7), (3, 4, 0, 11)] {
        let inputs = vec![
            (Role::Image, noise.tensor(&[3, side, side + 3, channels])?),
            parameter(noise.tensor(&[16, channels, kernel, kernel + padding % 2])?),
            parameter(noise.tensor(&[16])?),
        ];
        let geometry = ConvGeometry { stride: [2; 2], padding: [padding; 2], dilation: [1; 2], groups: 1 };
        let op = move |inputs: &[Tensor]| conv2d(&inputs[0], &inputs[1], inputs.get(2), &geometry);
        let name = format!("conv2d of images {kernel}x{kernel} of {channels} channels");
        cases.push(Case { name, inputs, op: Box::new(op) });
    }
    Ok(cases)
}

/// A convolution beside a shortcut, where two gradients meet.
fn residual(noise: &mut Noise) -> Result<Case> {
    let inputs = vec![
        activation(noise.tensor(&[3, 9, 8, 16])?),
        parameter(noise.tensor(&[16, 16, 3, 3])?),
        parameter(noise.positive(&[16])?),
        // All units are active: rounding before the ReLU would decide for some of them.
        parameter(noise.tensor(&[16])?.affine(1.0, 20.0)?),
    ];
    let op = |inputs: &[Tensor]| {
        let geometry = ConvGeometry { padding: [1; 2], ..ConvGeometry::default() };
        let features = conv2d(&inputs[0], &inputs[1], None, &geometry)?;
        let epilogue = Epilogue::ReluScaleAdd { scale: 0.1, shortcut: &inputs[0] };
        Ok(batch_norm_train(&features, &inputs[2], &inputs[3], None, 1e-5, epilogue)?.0)
    };
    Ok(Case { name: "conv2d beside a shortcut".to_owned(), inputs, op: Box::new(op) })
}

/// What follows a batch norm, by name.
#[derive(Clone, Copy, Debug)]
enum After {
    Identity,
    Relu,
    ScaleAdd,
    AddRelu,
}

impl After {
    fn epilogue(self, shortcut: Option<&Tensor>) -> Epilogue<'_> {
        match (self, shortcut) {
            (Self::ScaleAdd, Some(shortcut)) => Epilogue::ReluScaleAdd { scale: 0.1, shortcut },
            (Self::AddRelu, Some(shortcut)) => Epilogue::AddRelu { shortcut },
            (Self::Relu, _) => Epilogue::Relu,
            _ => Epilogue::Identity,
        }
    }
}

fn batch_norms(noise: &mut Noise) -> Result<Vec<Case>> {
    const EPS: f64 = 1e-5;

    let mut cases = Vec::new();
    for after in [After::Identity, After::Relu, After::ScaleAdd, After::AddRelu] {
        // One lane, ragged lanes, whole ones, and more than a block has.
        for (channels, side) in [(3, 7), (8, 9), (100, 3), (264, 5)] {
            let shape = [3, side, side, channels];
            let mut inputs = vec![
                activation(noise.tensor(&shape)?.affine(1.0, 2.0)?),
                parameter(noise.positive(&[channels])?),
                parameter(noise.tensor(&[channels])?),
            ];
            if matches!(after, After::ScaleAdd | After::AddRelu) {
                inputs.push(activation(noise.tensor(&shape)?));
            }
            let (mean, variance) = (noise.tensor(&[channels])?, noise.positive(&[channels])?);
            let train = move |inputs: &[Tensor]| {
                let epilogue = after.epilogue(inputs.get(3));
                Ok(batch_norm_train(&inputs[0], &inputs[1], &inputs[2], None, EPS, epilogue)?.0)
            };
            let eval = move |inputs: &[Tensor]| {
                let device = inputs[0].device();
                let (mean, variance) = (mean.to_device(device)?, variance.to_device(device)?);
                let epilogue = after.epilogue(inputs.get(3));
                batch_norm_eval(&inputs[0], &inputs[1], &inputs[2], &mean, &variance, EPS, epilogue)
            };
            let name = |mode: &str| format!("batch_norm_{mode} {after:?} of {channels}");
            cases.push(Case { name: name("train"), inputs: inputs.clone(), op: Box::new(train) });
            cases.push(Case { name: name("eval"), inputs, op: Box::new(eval) });
        }
    }
    Ok(cases)
}

/// An op of one activation.
type Unary = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

fn pools(noise: &mut Noise) -> Result<Vec<Case>> {
    let overlapping = PoolGeometry { stride: [2; 2], padding: [1; 2], ..PoolGeometry::square(3) };
    let mut case = |name: &str, op: Unary| {
        let inputs = vec![activation(noise.tensor(&[2, 9, 8, 24])?)];
        Ok::<_, candle_core::Error>(Case { name: name.to_owned(), inputs, op: Box::new(move |x| op(&x[0])) })
    };
    Ok(vec![
        case("max_pool2d 2x2", Box::new(|x| max_pool2d(x, &PoolGeometry::square(2))))?,
        case("max_pool2d 3x3 stride 2", Box::new(move |x| max_pool2d(x, &overlapping)))?,
        case("avg_pool2d counted", Box::new(move |x| avg_pool2d(x, &overlapping, Padding::Counted)))?,
        case("avg_pool2d not counted", Box::new(move |x| avg_pool2d(x, &overlapping, Padding::NotCounted)))?,
        case("global_avg_pool", Box::new(global_avg_pool))?,
        case("relu", Box::new(relu))?,
        case("flatten_chw", Box::new(flatten_chw))?,
    ])
}

fn dense(noise: &mut Noise) -> Result<Vec<Case>> {
    let (rows, classes) = (13, 37);
    let (labels, targets) = (noise.labels(rows, classes as u64)?, noise.positive(&[rows, classes])?);
    let inputs = vec![
        activation(noise.tensor(&[rows, 40])?),
        parameter(noise.tensor(&[classes, 40])?),
        parameter(noise.tensor(&[classes])?),
    ];
    let logits = activation(noise.tensor(&[rows, classes])?.affine(4.0, 0.0)?);
    let hard = move |x: &[Tensor]| cross_entropy(&x[0], &labels.to_device(x[0].device())?, 0.1);
    let soft = move |x: &[Tensor]| cross_entropy_soft(&x[0], &targets.to_device(x[0].device())?);
    Ok(vec![
        Case { name: "linear".into(), inputs, op: Box::new(|x| linear(&x[0], &x[1], x.get(2))) },
        Case { name: "cross_entropy".into(), inputs: vec![logits.clone()], op: Box::new(hard) },
        Case { name: "cross_entropy_soft".into(), inputs: vec![logits], op: Box::new(soft) },
    ])
}
