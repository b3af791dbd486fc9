//! Weights files: what PyTorch writes is read, what is hostile is refused, names are those of the libraries.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it passes over")]

mod export;
mod files;
mod foreign;
mod fuzz;
mod hostile;
mod names;
mod real;

use std::path::{Path, PathBuf};

use taper_hub::weights::{WeightsError, WeightsFile};

/// A file below `data/` of the workspace.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data").join(name)
}

/// The bytes of one of the tiny files of torch.save.
fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(data("fixtures/torch_files").join(name)).unwrap()
}

fn parse(bytes: &[u8]) -> Result<WeightsFile, WeightsError> {
    WeightsFile::parse(bytes, Path::new("FILE"))
}

#[track_caller]
fn refuses(bytes: &[u8], words: &str) {
    let message = parse(bytes).unwrap_err().to_string();
    assert!(message.starts_with("FILE: ") && message.contains(words), "{message}");
}

/// A safetensors file of a header and so many bytes of data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A zip archive of stored files, as torch.save makes it.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in files {
        writer.start_file(*name, options).unwrap();
        std::io::Write::write_all(&mut writer, bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
