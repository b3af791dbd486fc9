//! The ops against their plain references, finite differences and PyTorch.

mod batch_norm;
mod conv;
mod dense;
mod determinism;
mod golden;
mod pool;
mod refusals;
mod support;
mod update;
