//! Several tensors that one op writes: candle's own in-place ops write one.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};

use crate::error::KernelError;
use crate::storage::{slice_mut, view};

/// The name of an argument, and its tensor.
pub(crate) type Argument<'a> = (&'static str, &'a Tensor);

/// Calls `work` with the elements of the tensors that an op writes, and of one that it reads.
///
/// They are locked in the order of their addresses, as candle's own ops do, so that threads do not wait for each other.
///
/// # Errors
/// A tensor that is not dense, not f32 or not on the CPU; two that share their memory.
pub(crate) fn write<const N: usize>(
    op: &'static str,
    targets: [Argument<'_>; N],
    source: Argument<'_>,
    work: impl FnOnce([&mut [f32]; N], &[f32]),
) -> Result<()> {
    let arguments = targets.into_iter().chain([source]).enumerate();
    let mut all: Vec<_> = arguments.map(|(place, (name, tensor))| Pending::new(place, name, tensor)).collect();
    all.sort_by_key(|argument| argument.address);
    if let Some(pair) = all.windows(2).find(|pair| pair[0].address == pair[1].address) {
        let argument = if pair[0].place > pair[1].place { pair[0].name } else { pair[1].name };
        return Err(KernelError::Shared { op, argument }.into());
    }
    let mut work = Some(work);
    lock(op, &all, N, Held::default(), &mut |mut held: Held<'_>| {
        held.targets.sort_by_key(|(place, _)| *place);
        let targets: Vec<&mut [f32]> = held.targets.into_iter().map(|(_, target)| target).collect();
        if let (Ok(targets), Some(work)) = (targets.try_into(), work.take()) {
            work(targets, held.source);
        }
    })
}

/// An argument that is not locked yet, and which one it is.
struct Pending<'a> {
    place: usize,
    name: &'static str,
    tensor: &'a Tensor,
    /// Where its memory is kept track of.
    address: usize,
}

impl<'a> Pending<'a> {
    fn new(place: usize, name: &'static str, tensor: &'a Tensor) -> Self {
        let address = std::ptr::from_ref(&*tensor.storage_and_layout().0).addr();
        Self { place, name, tensor, address }
    }
}

/// What is locked: targets with their places, and the source.
#[derive(Default)]
struct Held<'a> {
    targets: Vec<(usize, &'a mut [f32])>,
    source: &'a [f32],
}

/// What is called once everything is locked.
type Work<'a> = &'a mut dyn FnMut(Held<'_>);

/// Locks the first argument, the source if its place is this one, and goes on with the rest.
fn lock(op: &'static str, pending: &[Pending<'_>], source: usize, held: Held<'_>, work: Work<'_>) -> Result<()> {
    let Some((first, rest)) = pending.split_first() else {
        work(held);
        return Ok(());
    };
    if first.place == source {
        let values = view(op, first.name, first.tensor)?;
        return lock(op, rest, source, Held { source: &values, ..held }, work);
    }
    let locked = Locked { op, first, rest, source, held: Cell::new(Some(held)), work: Cell::new(Some(work)) };
    first.tensor.inplace_op1(&locked)
}

/// The op that candle calls with a target locked.
struct Locked<'a> {
    op: &'static str,
    first: &'a Pending<'a>,
    rest: &'a [Pending<'a>],
    source: usize,
    /// Taken by the one call, as is the work.
    held: Cell<Option<Held<'a>>>,
    work: Cell<Option<Work<'a>>>,
}

impl InplaceOp1 for Locked<'_> {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let target = slice_mut(self.op, self.first.name, storage, layout)?;
        let (Some(mut held), Some(work)) = (self.held.take(), self.work.take()) else { return Ok(()) };
        held.targets.push((self.first.place, target));
        lock(self.op, self.rest, self.source, held, work)
    }
}
