//! Weights files in and out: any of the forms and names they come in, to the names of `taper-models` and back.

mod error;
mod file;
mod raw;
mod safetensors;
mod torch;

pub use error::WeightsError;
pub use file::{FileForm, WeightsFile, sha256_of};

/// x
#[derive(Debug)]
pub struct LoadReport;
impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("x")
    }
}
