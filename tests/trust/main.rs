//! Runs that can be trusted: killed anywhere they go on to the same bytes, they have one owner, and data that have
//! changed are noticed and named.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "where a run was stopped is worth knowing, and so is what could not be tried")]

mod data;
mod hostile;
mod kill;
mod owner;
mod small;
mod stop;
