//! Runs that the disk or the numbers betray.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod divergence;
mod faults;
mod run;
