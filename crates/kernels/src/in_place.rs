//! Several tensors that one op writes: candle's own in-place ops write one.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};

use crate::error::KernelError;
use crate::storage::{slice_mut, view};

/// The name of an argument, and its tensor.
pub(crate) type Argument<'a> = (&'static str, &'a Tensor);

/// Calls `work` with the elements of the tensors that an op writes, and of one that it reads.
///
/// # Errors
/// A tensor that is not dense, not f32 or not on the CPU; two that share their memory.
pub(crate) fn write<const N: usize>(
    op: &'static str,
    targets: [Argument<'_>; N],
    source: Argument<'_>,
    work: impl FnOnce([&mut [f32]; N], &[f32]),
) -> Result<()> {
    require_apart(op, targets.into_iter().chain([source]))?;
    let source = view(op, source.0, source.1)?;
    let mut work = Some(work);
    lock(op, &targets, Vec::with_capacity(N), &mut |targets| {
        if let (Ok(targets), Some(work)) = (targets.try_into(), work.take()) {
            work(targets, &source);
        }
    })
}

/// Whoever locks a tensor for writing and then the same memory once more waits for ever.
fn require_apart<'a>(op: &'static str, arguments: impl Iterator<Item = Argument<'a>>) -> Result<()> {
    let mut seen = Vec::new();
    for (argument, tensor) in arguments {
        let memory = std::ptr::from_ref(&*tensor.storage_and_layout().0).addr();
        if seen.contains(&memory) {
            return Err(KernelError::Shared { op, argument }.into());
        }
        seen.push(memory);
    }
    Ok(())
}

/// What is called once all targets are locked.
type Work<'a> = &'a mut dyn FnMut(Vec<&mut [f32]>);

/// Locks the first target, adds it to those that are held, and goes on with the rest.
fn lock(op: &'static str, targets: &[Argument<'_>], held: Vec<&mut [f32]>, work: Work<'_>) -> Result<()> {
    let Some((&(argument, target), rest)) = targets.split_first() else {
        work(held);
        return Ok(());
    };
    target.inplace_op1(&Locked { op, argument, rest, held: Cell::new(held), work: Cell::new(Some(work)) })
}

/// The op that candle calls with a target locked.
struct Locked<'a> {
    op: &'static str,
    argument: &'static str,
    rest: &'a [Argument<'a>],
    /// The targets that are held already; the one call takes them.
    held: Cell<Vec<&'a mut [f32]>>,
    /// Taken as well.
    work: Cell<Option<Work<'a>>>,
}

impl InplaceOp1 for Locked<'_> {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let target = slice_mut(self.op, self.argument, storage, layout)?;
        let (mut held, Some(work)) = (self.held.take(), self.work.take()) else { return Ok(()) };
        held.push(target);
        lock(self.op, self.rest, held, work)
    }
}
