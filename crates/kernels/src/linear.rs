use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::build::build;
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::matrix::{Matrix, Write, multiply};
use crate::reduce::column_sums;
use crate::storage::{require_f32, require_float, require_shape, shape_error, tensor, view};

const OP: &str = "linear";

/// The work of each product is cut into this many pieces at most, whatever the number of threads.
const MAX_PIECES: usize = 16;

/// Affine map of each row: `x · wᵀ + bias`.
///
/// # Shapes
/// `x` `[n, k]` · `w` `[out, k]` · `bias` `[out]` · returns `[n, out]`. All f32; on a GPU `x` may be bf16, and
/// the result is of its type.
///
/// # Errors
/// Shapes that do not fit together, another element type or device.
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    require_float(OP, "x", x)?;
    require_f32(OP, "w", w)?;
    let &[rows, inner] = x.dims() else {
        return Err(shape_error(OP, "x", x, "[n, k]".into()));
    };
    let &[columns, w_inner] = w.dims() else {
        return Err(shape_error(OP, "w", w, "[out, k]".into()));
    };
    if inner != w_inner {
        return Err(shape_error(OP, "w", w, format!("[out, {inner}], as x has {inner} columns")));
    }
    if let Some(bias) = bias {
        require_f32(OP, "bias", bias)?;
        require_shape(OP, "bias", bias, &[columns], "one value per output")?;
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return crate::cuda::linear(x, w, bias);
    }
    let op = Linear { rows, inner, columns };
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let (x_view, w_view) = (view(OP, "x", &x)?, view(OP, "w", &w)?);
    let Some(bias) = bias else {
        return attach(op, &[&x, &w], op.forward(&x_view, &w_view, None), (rows, columns));
    };
    let bias = bias.contiguous()?;
    let y = op.forward(&x_view, &w_view, Some(&view(OP, "bias", &bias)?));
    attach(op, &[&x, &w, &bias], y, (rows, columns))
}

#[derive(Clone, Copy)]
struct Linear {
    rows: usize,
    inner: usize,
    columns: usize,
}

impl Linear {
    /// The long inner axis is cut, because batch and outputs are short; pieces are added in order.
    fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let &Self { rows, inner, columns } = self;
        let piece = inner.div_ceil(MAX_PIECES).max(256);
        let starts: Vec<usize> = (0..inner).step_by(piece).collect();
        let partials: Vec<Vec<f32>> = starts
            .into_par_iter()
            .map(|start| {
                let mut partial = vec![0.0; rows * columns];
                let size = [rows, columns, piece.min(inner - start)];
                let left = Matrix::rows(x.get(start..).unwrap_or(&[]), inner);
                let right = Matrix::rows(&w[start.min(w.len())..], inner).transposed();
                multiply(size, &mut partial, columns, Write::Replace, left, right);
                partial
            })
            .collect();
        let mut y: Vec<f32> = match bias {
            Some(bias) => bias.repeat(rows),
            None => vec![0.0; rows * columns],
        };
        for partial in partials {
            y.iter_mut().zip(&partial).for_each(|(y, value)| *y += value);
        }
        y
    }

    fn input_gradient(&self, w: &[f32], dy: &[f32]) -> Vec<f32> {
        let &Self { rows, inner, columns } = self;
        let piece = rows.div_ceil(MAX_PIECES).max(1);
        build(rows * inner, piece * inner, |index, dx| {
            let left = Matrix::rows(&dy[index * piece * columns..], columns);
            let size = [dx.len() / inner, inner, columns];
            multiply(size, dx, inner, Write::Replace, left, Matrix::rows(w, inner));
        })
    }

    fn weight_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let &Self { rows, inner, columns } = self;
        let piece = columns.div_ceil(MAX_PIECES).max(1);
        build(columns * inner, piece * inner, |index, dw| {
            let left = Matrix::rows(&dy[(index * piece).min(dy.len())..], columns).transposed();
            let size = [dw.len() / inner, inner, rows];
            multiply(size, dw, inner, Write::Replace, left, Matrix::rows(x, inner));
        })
    }
}

impl Operation for Linear {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (x, w, dy) = (&inputs[0], &inputs[1], gradient.view(OP)?);
        let mut gradients = vec![
            wanted(x, || tensor(self.input_gradient(&view(OP, "w", w)?, &dy), x.shape()))?,
            wanted(w, || tensor(self.weight_gradient(&view(OP, "x", x)?, &dy), w.shape()))?,
        ];
        if let Some(bias) = inputs.get(2) {
            gradients.push(wanted(bias, || column_sums(OP, gradient.tensor()))?);
        }
        Ok(gradients)
    }
}
