//! The ops against their plain references, finite differences and PyTorch.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers outside test functions fail by panicking, too.

mod batch_norm;
mod conv;
mod dense;
mod determinism;
mod golden;
mod graph;
mod pool;
mod refusals;
mod support;
mod update;
