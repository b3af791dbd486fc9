//! `taper-tests` holds the tests of what no single crate can promise, and what those tests share.
//!
//! **Owns** running the binary as a user does ([`taper`], [`run`], [`Outcome`]), the question whether a slow test should
//! run ([`slow_test`]) and where real data lies ([`test_data`]). **Does not know** the inside of any crate.
//!
//! In reading order: [`taper`] gives a command, [`run`] ends it within a limit and gives an [`Outcome`];
//! [`temp_folder`] is where it may write.
//!
//! ```no_run
//! use taper_tests::{run, taper, temp_folder};
//!
//! let folder = temp_folder()?;
//! let outcome = run(taper()?.args(["inspect", "data"]).arg(folder.path()))?;
//! outcome.expect_code(3);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Read `taper-cli` next: the binary that these tests run. The examples of the root README are tests of this crate.

#![forbid(unsafe_code)]

mod binary;
mod gates;

pub use binary::{Outcome, run, run_within, taper, temp_folder, xtask};
pub use gates::{slow_test, test_data, workspace_root};

/// Makes rustdoc compile and run the examples of the root README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
