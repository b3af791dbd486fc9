use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::passes::{self, Affine, Kind, Saved};
use super::statistics::Moments;
use crate::storage::{slice, tensor, view};

/// Where the statistics come from: those of the batch depend on `x`, running ones do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Batch,
    Running,
}

/// Inputs: `x`, then the shortcut if the epilogue has one, then `[gamma, beta]` stacked.
pub(super) struct BatchNorm {
    name: &'static str,
    count: usize,
    mean: Vec<f32>,
    inverse_std: Vec<f32>,
    source: Source,
    kind: Kind,
}

/// Gradients of `x`, of the shortcut and of the stacked parameters.
struct Gradients {
    x: Option<Tensor>,
    shortcut: Option<Tensor>,
    parameters: Option<Tensor>,
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

    fn backward(
        &self,
        x: &Tensor,
        shortcut: Option<&Tensor>,
        parameters: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<Gradients> {
        let dy = dy.contiguous()?.detach();
        let shortcut = self.shortcut_gradient(shortcut, y, &dy)?;
        let affine = self.affine(&view(self.name, "parameters", parameters)?);
        let (x_view, y_view) = (view(self.name, "x", x)?, view(self.name, "y", y)?);
        let dy_view = view(self.name, "gradient", &dy)?;
        let saved = Saved { x: &x_view, y: &y_view, dy: &dy_view, affine: &affine, kind: self.kind };
        let sums = match self.source == Source::Running && !parameters.track_op() {
            true => None,
            false => Some(passes::gradient_sums(saved)),
        };
        let x = match x.track_op() {
            true => Some(tensor(self.input_gradient(saved, sums.as_ref()), x.shape())?),
            false => None,
        };
        let parameters = match sums.filter(|_| parameters.track_op()) {
            Some(sums) => Some(self.parameter_gradient(&sums)?),
            None => None,
        };
        Ok(Gradients { x, shortcut, parameters })
    }

    fn shortcut_gradient(&self, shortcut: Option<&Tensor>, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !shortcut.is_some_and(Tensor::track_op) {
            return Ok(None);
        }
        if self.kind != Kind::AddRelu {
            return Ok(Some(dy.clone()));
        }
        let (y_view, dy_view) = (view(self.name, "y", y)?, view(self.name, "gradient", dy)?);
        Ok(Some(tensor(passes::masked(&y_view, &dy_view), dy.shape())?))
    }

    fn input_gradient(&self, saved: Saved<'_>, sums: Option<&(Vec<f64>, Vec<f64>)>) -> Vec<f32> {
        let channels = self.mean.len();
        let (mut offset, mut tilt) = (vec![0.0; channels], vec![0.0; channels]);
        if let (Source::Batch, Some((sums, products))) = (self.source, sums) {
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

impl CustomOp2 for BatchNorm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let affine = self.affine(slice(self.name, "parameters", parameters, parameters_layout)?);
        let y = passes::apply(slice(self.name, "x", x, x_layout)?, &[], &affine, self.kind);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradients = self.backward(x, None, parameters, y, dy)?;
        Ok((gradients.x, gradients.parameters))
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        shortcut: &CpuStorage,
        shortcut_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let affine = self.affine(slice(self.name, "parameters", parameters, parameters_layout)?);
        let shortcut = slice(self.name, "shortcut", shortcut, shortcut_layout)?;
        let y = passes::apply(slice(self.name, "x", x, x_layout)?, shortcut, &affine, self.kind);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        shortcut: &Tensor,
        parameters: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = self.backward(x, Some(shortcut), parameters, y, dy)?;
        Ok((gradients.x, gradients.shortcut, gradients.parameters))
    }
}
