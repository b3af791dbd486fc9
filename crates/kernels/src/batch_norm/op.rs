use candle_core::{Result, Tensor};

use super::passes::{self, Affine, Kind, Saved};
use super::statistics::Moments;
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::norm_conv::Again;
use crate::storage::{tensor, view};

/// Where the statistics come from: those of the batch depend on `x`, running ones do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Batch,
    Running,
}

/// Inputs: `x`, gamma and beta as one tensor, then the shortcut if the epilogue has one.
pub(crate) struct BatchNorm {
    name: &'static str,
    count: usize,
    mean: Vec<f32>,
    inverse_std: Vec<f32>,
    source: Source,
    kind: Kind,
}

impl BatchNorm {
    pub(super) fn new(name: &'static str, moments: Moments, eps: f64, source: Source, kind: Kind) -> Self {
        let channels = moments.mean.len();
        let inverse_std = |channel| (1.0 / (moments.variance(channel) + eps).sqrt()) as f32;
        Self {
            name,
            count: moments.count,
            inverse_std: (0..channels).map(inverse_std).collect(),
            mean: moments.mean.into_iter().map(|mean| mean as f32).collect(),
            source,
            kind,
        }
    }

    fn affine(&self, parameters: &[f32]) -> Affine {
        let (gamma, beta) = parameters.split_at(self.mean.len());
        let slope: Vec<f32> = gamma.iter().zip(&self.inverse_std).map(|(gamma, inverse)| gamma * inverse).collect();
        Affine::new(&self.mean, &slope, beta)
    }

    /// The op on contiguous inputs; `parameters` are gamma and beta as one tensor, see [`pair`].
    pub(super) fn apply(self, x: &Tensor, parameters: &Tensor, shortcut: Option<&Tensor>) -> Result<Tensor> {
        let affine = self.affine(&view(self.name, "parameters", parameters)?);
        let x_view = view(self.name, "x", x)?;
        let Some(shortcut) = shortcut else {
            let y = passes::apply(&x_view, &[], &affine, self.kind);
            return attach(self, &[x, parameters], y, x.shape());
        };
        let y = passes::apply(&x_view, &view(self.name, "shortcut", shortcut)?, &affine, self.kind);
        attach(self, &[x, parameters, shortcut], y, x.shape())
    }

    fn shortcut_gradient(&self, shortcut: &Tensor, saved: Saved<'_>, dy: &Gradient) -> Result<Option<Gradient>> {
        match self.kind {
            Kind::AddRelu => wanted(shortcut, || tensor(passes::masked(saved.y, saved.dy), shortcut.shape())),
            // The sum passes its gradient on unchanged; a clone shares the values.
            _ => Ok(shortcut.track_op().then(|| dy.clone())),
        }
    }

    fn input_gradient(&self, saved: Saved<'_>, (sums, products): &(Vec<f64>, Vec<f64>)) -> Vec<f32> {
        let channels = self.mean.len();
        let (mut offset, mut tilt) = (vec![0.0; channels], vec![0.0; channels]);
        if self.source == Source::Batch {
            for channel in 0..channels {
                let inverse_std = f64::from(self.inverse_std[channel]);
                offset[channel] = (sums[channel] / self.count as f64) as f32;
                let product = products[channel] * inverse_std * inverse_std;
                tilt[channel] = (product / self.count as f64) as f32;
            }
        }
        passes::input_gradient(saved, &offset, &tilt)
    }

    fn parameter_gradient(&self, (sums, products): &(Vec<f64>, Vec<f64>)) -> Result<Tensor> {
        let scaled = products.iter().zip(&self.inverse_std);
        let gamma = scaled.map(|(product, &inverse)| (product * f64::from(inverse)) as f32);
        let gradient: Vec<f32> = gamma.chain(sums.iter().map(|&sum| sum as f32)).collect();
        tensor(gradient, (2, self.mean.len()))
    }
}

impl Again for BatchNorm {
    fn again(&self, x: &Tensor, parameters: &Tensor) -> Result<Tensor> {
        let affine = self.affine(&view(self.name, "parameters", parameters)?);
        tensor(passes::apply(&view(self.name, "x", x)?, &[], &affine, self.kind), x.shape())
    }
}

impl Operation for BatchNorm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn backward(&self, inputs: &[Tensor], y: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (x, parameters) = (&inputs[0], &inputs[1]);
        let affine = self.affine(&view(self.name, "parameters", parameters)?);
        let (x_view, y_view, dy) = (view(self.name, "x", x)?, view(self.name, "y", y)?, gradient.view(self.name)?);
        let saved = Saved { x: &x_view, y: &y_view, dy: &dy, affine: &affine, kind: self.kind };
        let through_statistics = self.source == Source::Batch && x.track_op();
        let sums = match through_statistics || parameters.track_op() {
            true => passes::gradient_sums(saved),
            false => Default::default(),
        };
        let mut gradients = vec![
            wanted(x, || tensor(self.input_gradient(saved, &sums), x.shape()))?,
            wanted(parameters, || self.parameter_gradient(&sums))?,
        ];
        if let Some(shortcut) = inputs.get(2) {
            gradients.push(self.shortcut_gradient(shortcut, saved, gradient)?);
        }
        Ok(gradients)
    }
}

/// Gamma and beta as one tensor `[2, c]`, so that batch norm fits candle's three inputs.
pub(super) fn pair(gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
    let (gamma, beta) = (gamma.contiguous()?, beta.contiguous()?);
    let mut both = view(PAIR, "gamma", &gamma)?.to_vec();
    both.extend_from_slice(&view(PAIR, "beta", &beta)?);
    attach(Pair, &[&gamma, &beta], both, (2, gamma.elem_count()))
}

const PAIR: &str = "batch_norm_parameters";

struct Pair;

impl Operation for Pair {
    fn name(&self) -> &'static str {
        PAIR
    }

    fn backward(&self, inputs: &[Tensor], _both: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (gamma, beta, gradient) = (&inputs[0], &inputs[1], gradient.view(PAIR)?);
        let (of_gamma, of_beta) = gradient.split_at(gamma.elem_count());
        Ok(vec![
            wanted(gamma, || tensor(of_gamma.to_vec(), gamma.shape()))?,
            wanted(beta, || tensor(of_beta.to_vec(), beta.shape()))?,
        ])
    }
}
