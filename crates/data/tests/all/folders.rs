//! Image folders, decoding, and what is no data set.

use std::fs;
use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use taper_data::{Covers, DataError, DataKind, Part, decode};

use crate::files::{Files, folder_with, gzip, open_error, open_path, png, write};

const RED: [u8; 3] = [200, 10, 20];

#[test]
fn a_split_folder_keeps_its_parts() {
    let folder = folder_with(&[
        ("train/dog/b.png", png(2, 3, RED)),
        ("train/dog/a.PNG", png(2, 3, RED)),
        ("train/dog/notes.txt", b"not an image".to_vec()),
        ("train/dog/.hidden.png", b"not an image".to_vec()),
        ("train/cat/deep/c.png", png(2, 3, RED)),
        ("train/.cache/x", vec![]),
        ("val/cat/d.png", png(2, 3, RED)),
        ("readme.md", vec![]),
    ]);
    let data = open_path(folder.path()).unwrap();
    assert_eq!(data.dataset.classes(), ["cat", "dog"]);
    let names =
        |part| -> Vec<String> { data.official.get(part).iter().map(|index| data.dataset.name(*index)).collect() };
    assert_eq!(names(Part::Train), ["train/cat/deep/c.png", "train/dog/a.PNG", "train/dog/b.png"]);
    assert_eq!(names(Part::Val), ["val/cat/d.png"]);
    assert!(names(Part::Test).is_empty());
    assert_eq!(data.dataset.labels(), [0, 1, 1, 0]);
    let sample = data.dataset.get(1).unwrap();
    assert_eq!((sample.label, sample.image.size(), sample.image.pixel(1, 2)), (1, [2, 3], RED));
    let provenance = data.provenance;
    assert_eq!((provenance.kind, provenance.covers), (DataKind::ImageFolder, Covers::Listing));
    assert_eq!(provenance.num_ignored_files, 2);
}

#[test]
fn a_flat_folder_is_all_train() {
    let folder = folder_with(&[("b/1.png", png(1, 1, RED)), ("a/1.png", png(1, 1, RED))]);
    let data = open_path(folder.path()).unwrap();
    assert_eq!(
        (data.dataset.classes(), data.official.train.as_slice()),
        (&["a".to_string(), "b".to_string()][..], &[0, 1][..])
    );
    assert!(data.official.val.is_empty() && data.official.test.is_empty());
}

#[test]
fn every_way_to_find_nothing_is_told_apart() {
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(open_error(empty.path()), DataError::Empty { .. }));
    let missing = open_error(&empty.path().join("nowhere"));
    assert!(matches!(missing, DataError::Missing { .. }));
    assert!(missing.to_string().contains("nowhere") && missing.to_string().contains("glyphs"));

    let cases: [Files<'_>; 3] = [
        vec![("a.png", png(1, 1, RED))],
        vec![("train/a.png", png(1, 1, RED))],
        vec![(".git/config", vec![]), ("test", vec![])],
    ];
    for files in cases {
        let folder = folder_with(&files);
        let error = open_error(folder.path());
        assert!(matches!(error, DataError::UnknownLayout { .. }), "{error}");
        assert!(error.to_string().contains("neither CIFAR files nor folders"), "{error}");
    }
    let file = folder_with(&[("set.zip", vec![1])]);
    assert!(open_error(&file.path().join("set.zip")).to_string().contains(".tar.gz"));

    let class_without_images = folder_with(&[("a/1.png", png(1, 1, RED)), ("b/1.txt", vec![])]);
    match open_error(class_without_images.path()) {
        DataError::Empty { path } => assert!(path.ends_with("b")),
        other => panic!("{other}"),
    }
    let unknown_class = folder_with(&[("train/a/1.png", png(1, 1, RED)), ("val/b/1.png", png(1, 1, RED))]);
    assert!(open_error(unknown_class.path()).to_string().contains("no class \"b\""));
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn all_formats_and_colour_types_become_rgb() {
    let rgb = DynamicImage::from(RgbImage::from_pixel(16, 8, Rgb(RED)));
    let grey = DynamicImage::from(image::GrayImage::from_pixel(16, 8, image::Luma([77])));
    let clear = DynamicImage::from(image::RgbaImage::from_pixel(16, 8, image::Rgba([200, 10, 20, 0])));
    let cases = [
        (encoded(&rgb, ImageFormat::Png), RED, 0),
        (encoded(&rgb, ImageFormat::Bmp), RED, 0),
        (encoded(&rgb, ImageFormat::WebP), RED, 0),
        (encoded(&rgb, ImageFormat::Gif), RED, 0),
        (encoded(&rgb, ImageFormat::Jpeg), RED, 3), // JPEG loses a little.
        (encoded(&grey, ImageFormat::Png), [77; 3], 0),
        (encoded(&grey, ImageFormat::Jpeg), [77; 3], 1),
        (encoded(&clear, ImageFormat::Png), RED, 0),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (nth, (bytes, colour, tolerance)) in cases.into_iter().enumerate() {
        // The name lies about the format, and does not matter.
        let path = folder.path().join(format!("{nth}.png"));
        write(&path, &bytes);
        let image = decode(&path).unwrap();
        assert_eq!(image.size(), [8, 16], "{nth}");
        let near = image.pixel(3, 5).iter().zip(colour).all(|(found, expected)| found.abs_diff(expected) <= tolerance);
        assert!(near, "{nth}: {:?} {colour:?}", image.pixel(3, 5));
    }
}

#[test]
fn broken_images_are_errors_of_decoding() {
    let noisy =
        RgbImage::from_fn(64, 64, |x, y| Rgb([(x * 37 % 251) as u8, (y * 91 % 241) as u8, (x * y % 239) as u8]));
    let noisy = DynamicImage::from(noisy);
    let (whole_png, whole_jpeg) = (encoded(&noisy, ImageFormat::Png), encoded(&noisy, ImageFormat::Jpeg));
    let mut huge = whole_png.clone();
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let cases = [
        ("empty", vec![]),
        ("text", b"this is no image".to_vec()),
        ("half a PNG", whole_png[..whole_png.len() / 2].to_vec()),
        ("half a JPEG", whole_jpeg[..whole_jpeg.len() / 2].to_vec()),
        ("a JPEG without its end", whole_jpeg[..whole_jpeg.len() - 2].to_vec()),
        ("the head of a JPEG", whole_jpeg[..20].to_vec()),
        ("a PNG that claims 2^31 pixels a side", huge),
        ("gzip", gzip(&whole_png)),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.png");
    for (case, bytes) in cases {
        fs::write(&path, bytes).unwrap();
        match decode(&path) {
            Err(DataError::Decode { .. } | DataError::Malformed { .. }) => {}
            other => panic!("{case}: {other:?}"),
        }
    }
    assert!(matches!(decode(&folder.path().join("absent.png")), Err(DataError::Missing { .. })));
    fs::write(&path, whole_jpeg).unwrap();
    assert_eq!(decode(&path).unwrap().size(), [64, 64]);
}
