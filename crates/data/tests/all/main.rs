//! What the crate promises to its callers, checked from outside.
//!
//! Files are made by the tests, byte by byte, but for a few pickles in `data/fixtures` that real Python wrote and the
//! photos in `data/golden` that Pillow wrote.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers as well")]

mod archives;
mod broken;
mod cache;
mod cifar;
mod cub;
mod cuts;
mod files;
mod folders;
mod glyphs;
mod golden;
mod loader;
mod real_cifar;
mod splits;
mod transforms;
