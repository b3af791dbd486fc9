//! Files that are no images, and how they are found, reported and left out.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use taper_data::{Compose, DataError, Interpolation, LastBatch, Loader, OnBad, Order, Transform, decode, survey};

use crate::files::{folder_with, gzip, open_path, png, write};

fn noisy(side: u32) -> DynamicImage {
    let pixel = |x: u32, y: u32| Rgb([(x * 37 % 251) as u8, (y * 91 % 241) as u8, (x * y % 239) as u8]);
    DynamicImage::from(RgbImage::from_fn(side, side, pixel))
}

fn encoded(format: ImageFormat, side: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    noisy(side).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A PNG whose header claims another size; its checksum is right.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(1, 1, [0; 3]);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    bytes
}

/// A JPEG whose frame header claims another size.
fn jpeg_claiming(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = encoded(ImageFormat::Jpeg, 16);
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// Name, content and a word of the reason.
fn broken_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let (whole_png, whole_jpeg) = (encoded(ImageFormat::Png, 64), encoded(ImageFormat::Jpeg, 64));
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    vec![
        ("zero_bytes.jpg", vec![], "empty"),
        ("truncated.jpg", half(&whole_jpeg), "end before the image does"),
        ("without_end.jpg", whole_jpeg[..whole_jpeg.len() - 2].to_vec(), "end before the image does"),
        ("head.jpg", whole_jpeg[..20].to_vec(), "end before the image does"),
        ("truncated.png", half(&whole_png), "cannot decode"),
        ("truncated.gif", half(&encoded(ImageFormat::Gif, 64)), "cannot decode"),
        ("truncated.webp", half(&encoded(ImageFormat::WebP, 64)), "cannot decode"),
        ("truncated.bmp", half(&encoded(ImageFormat::Bmp, 64)), "cannot decode"),
        ("page.jpg", b"\n<!DOCTYPE html><html><body>404</body></html>".to_vec(), "HTML page"),
        ("text.jpg", b"this is no image".to_vec(), "no JPEG, PNG"),
        ("gzip.png", gzip(&whole_png), "no JPEG, PNG"),
        ("icon.png", b"\0\0\x01\0\x01\0".to_vec(), "kind Ico"),
        ("bomb.png", png_claiming(30_000, 30_000), "30000x30000"),
        ("bomb.jpg", jpeg_claiming(30_000, 30_000), "30000x30000"),
        ("long.png", png_claiming(1 << 30, 1), "cannot decode"),
        ("flat.png", png_claiming(7, 0), "cannot decode"),
    ]
}

#[test]
fn every_broken_file_has_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, word) in broken_files() {
        let path = folder.path().join(name);
        write(&path, &bytes);
        let error = decode(&path).unwrap_err();
        assert!(matches!(error, DataError::Decode { .. } | DataError::Malformed { .. }), "{name}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(word) && text.contains(name), "{name}: {text}");
    }
    assert!(matches!(decode(&folder.path().join("absent.png")), Err(DataError::Io { .. })));
}

/// What is no file at all: a folder, a dangling link, a link to itself (which nobody, not even root, may follow).
#[cfg(unix)]
fn add_strange(folder: &Path) -> [(&'static str, &'static str); 3] {
    fs::create_dir(folder.join("directory.jpg")).unwrap();
    write(&folder.join("directory.jpg/inside.jpg"), &png(4, 4, [1; 3]));
    std::os::unix::fs::symlink("nowhere.jpg", folder.join("dangling.jpg")).unwrap();
    std::os::unix::fs::symlink("loop.jpg", folder.join("loop.jpg")).unwrap();
    [("directory.jpg", "a folder"), ("dangling.jpg", "a link"), ("loop.jpg", "a link")]
}

#[cfg(unix)]
#[test]
fn a_survey_finds_them_all_and_an_epoch_reports_them() {
    let folder = folder_with(&[("a/good.png", png(9, 6, [10, 20, 30])), ("b/good.jpg", encoded(ImageFormat::Jpeg, 8))]);
    let mut expected: Vec<(&str, &str)> = add_strange(&folder.path().join("a")).to_vec();
    for (name, bytes, word) in broken_files() {
        write(&folder.path().join("a").join(name), &bytes);
        expected.push((name, word));
    }
    let data = open_path(folder.path()).unwrap();
    let all = data.official.train.clone();
    assert_eq!(all.len(), expected.len() + 2);
    let fixed = Compose(vec![Transform::ResizeExact { size: [4, 4], interpolation: Interpolation::Bilinear }]);
    let found = survey(&*data.dataset, &all, &fixed).unwrap();
    assert_eq!(
        found.usable.iter().map(|index| data.dataset.name(*index)).collect::<Vec<_>>(),
        ["a/good.png", "b/good.jpg"]
    );
    assert_eq!((found.min_size, found.max_size), ([8, 6], [9, 8]));
    assert_eq!(found.usable.len() + found.bad.len(), all.len());
    for (name, word) in &expected {
        let bad = found.bad.iter().find(|bad| bad.name == format!("a/{name}")).unwrap();
        assert!(bad.reason.contains(word), "{bad:?}");
    }
    // The same in evaluation: reported, not replaced, not left out of the count.
    let loader = Loader {
        dataset: Arc::clone(&data.dataset),
        indices: all.clone().into(),
        transform: fixed.clone(),
        batch_size: 4,
        workers: 2,
        prefetch: 4,
        last: LastBatch::Keep,
        bad: OnBad::Report,
        seed: 0,
    };
    let batches: Vec<_> = loader.epoch(Order::Sequential).map(|batch| batch.unwrap()).collect();
    assert_eq!(batches.iter().map(taper_data::Batch::len).sum::<usize>(), 2);
    assert_eq!(batches.into_iter().flat_map(|batch| batch.bad).collect::<Vec<_>>(), found.bad);
    // What a survey calls usable is usable.
    let clean = Loader { indices: found.usable.clone().into(), bad: OnBad::Fail, ..loader };
    assert_eq!(clean.epoch(Order::Sequential).map(|batch| batch.unwrap().len()).sum::<usize>(), 2);
    let again = survey(&*data.dataset, &found.usable, &fixed).unwrap();
    assert_eq!((again.stats, again.bad), (found.stats, vec![]));
}

#[test]
fn no_mutation_of_a_file_makes_the_decoder_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mutant");
    let formats = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp];
    let mut num_refused = 0;
    for (nth, format) in formats.into_iter().enumerate() {
        let whole = encoded(format, 24);
        for mutant in 0..200 {
            let mut rng = taper_data::rng::for_sample(nth as u64, 0, mutant);
            let mut bytes = whole.clone();
            for _ in 0..1 + rng.below(4) {
                let place = rng.below(bytes.len());
                bytes[place] = rng.next_u32() as u8;
            }
            fs::write(&path, bytes).unwrap();
            num_refused += usize::from(decode(&path).is_err());
        }
    }
    assert!((200..900).contains(&num_refused), "{num_refused}");
}
