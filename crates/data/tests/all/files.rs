//! Makes the files that other tests read.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use taper_data::{DataError, DataSpec, OpenedData, Result, open};
use tempfile::TempDir;

/// Byte `place` of the three planes of image `record`; the script of the fixtures has the same rule.
pub(crate) fn plane_byte(record: usize, place: usize) -> u8 {
    ((7 * record + 13 * place) % 251) as u8
}

/// A record of the binary form.
pub(crate) fn record(labels: &[u8], record: usize) -> Vec<u8> {
    labels.iter().copied().chain((0..3072).map(|place| plane_byte(record, place))).collect()
}

/// A file of CIFAR-100 records whose fine labels are `99, 98, ...` and coarse ones `19, 18, ...`.
pub(crate) fn cifar_100_file(num_records: usize) -> Vec<u8> {
    (0..num_records).flat_map(|index| record(&[19 - index as u8, 99 - index as u8], index)).collect()
}

/// Files of a case: name and content.
pub(crate) type Files<'a> = Vec<(&'a str, Vec<u8>)>;

/// A folder with these files in it; folders on the way are made.
pub(crate) fn folder_with(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        write(&folder.path().join(name), bytes);
    }
    folder
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub(crate) fn open_path(path: &Path) -> Result<OpenedData> {
    open(&DataSpec::new(path.to_str().unwrap()))
}

/// The error of opening a path that must not open.
pub(crate) fn open_error(path: &Path) -> DataError {
    open_path(path).unwrap_err()
}

/// A file of the fixtures that `xtask/golden/cifar_pickles.py` made.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/fixtures/cifar_pickles");
    fs::read(folder.join(name)).unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A whole PNG file of one colour.
pub(crate) fn png(height: u32, width: u32, colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(width, height, image::Rgb(colour));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}
