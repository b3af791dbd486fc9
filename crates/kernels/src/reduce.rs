//! Sums whose order is fixed by the shape alone, never by the number of threads.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::storage::{tensor, view};

/// Elements summed in one go before the partial result goes to the ordered sum.
const CHUNK: usize = 32 * 1024;

/// Rows per chunk for rows of `columns` elements.
pub(crate) fn chunk_rows(columns: usize) -> usize {
    (CHUNK / columns.max(1)).max(1)
}

/// Sum of each column of `[rows, columns]`, all leading axes taken as rows.
pub(crate) fn column_sums(op: &'static str, values: &Tensor) -> Result<Tensor> {
    let columns = values.dims().last().copied().unwrap_or(1);
    let values = view(op, "gradient", values)?;
    let partials: Vec<Vec<f64>> = values
        .par_chunks(chunk_rows(columns) * columns.max(1))
        .map(|rows| {
            let mut sums = vec![0.0; columns];
            for row in rows.chunks_exact(columns.max(1)) {
                sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            }
            sums
        })
        .collect();
    let sums = add_in_order(&partials, columns);
    tensor(sums.into_iter().map(|sum| sum as f32).collect(), columns)
}

/// Element-wise sum of the partial results, first to last.
pub(crate) fn add_in_order(partials: &[Vec<f64>], len: usize) -> Vec<f64> {
    let mut sums = vec![0.0; len];
    for partial in partials {
        sums.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
    }
    sums
}

/// Sum of the squares of all elements, in f64 and in a fixed order (for the global gradient norm).
///
/// # Errors
/// A tensor that is not f32 on the CPU.
pub fn sum_of_squares(values: &Tensor) -> Result<f64> {
    let values = values.detach().contiguous()?;
    let values = view("sum_of_squares", "values", &values)?;
    let partials: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|&value| f64::from(value) * f64::from(value)).sum())
        .collect();
    Ok(partials.iter().sum())
}
