//! Folders in the binary and the python form.

use std::fs;

use taper_data::{Covers, DataError, DataKind, DataSpec, LabelKind, OpenedData, Part, Recognised, open};

use crate::files::{Files, cifar_100_file, fixture, folder_with, open_error, open_path, plane_byte, record};

/// Checks order, labels, names and pixels of data whose images follow the rule of `plane_byte`.
fn check_images(data: &OpenedData, part: Part, labels: &[u32]) {
    let indices = data.official.get(part);
    assert_eq!(indices.len(), labels.len());
    for (position, (&index, &label)) in indices.iter().zip(labels).enumerate() {
        let sample = data.dataset.get(index).unwrap();
        assert_eq!((sample.label, data.dataset.label(index)), (label, label));
        assert_eq!(data.dataset.name(index), format!("{part}/{position:05}"));
        for (row, column) in [(0, 0), (0, 1), (17, 5), (31, 31)] {
            let place = row * 32 + column;
            let expected = [0, 1024, 2048].map(|plane| plane_byte(position, plane + place));
            assert_eq!(sample.image.pixel(row, column), expected, "{position} {row} {column}");
        }
    }
}

#[test]
fn cifar_100_binary_is_read_with_both_labels() {
    let names = |prefix: &str, count: usize| -> Vec<u8> {
        (0..count).flat_map(|index| format!("{prefix}_{index}\n").into_bytes()).collect()
    };
    let folder = folder_with(&[
        ("train.bin", cifar_100_file(3)),
        ("test.bin", cifar_100_file(2)),
        ("fine_label_names.txt", names("fine", 100)),
        ("coarse_label_names.txt", names("coarse", 20)),
    ]);
    let data = open_path(folder.path()).unwrap();
    check_images(&data, Part::Train, &[99, 98, 97]);
    check_images(&data, Part::Test, &[99, 98]);
    assert!(data.official.val.is_empty());
    assert_eq!(data.dataset.classes()[99], "fine_99");
    let provenance = &data.provenance;
    assert_eq!((provenance.kind, provenance.covers), (DataKind::Cifar100Binary, Covers::Contents));
    assert_eq!((provenance.files.len(), &provenance.official), (4, &Recognised::Unofficial));
    assert_eq!(provenance.files[0].bytes, 3 * 3074);

    let location = folder.path().to_str().unwrap().to_string();
    let coarse = open(&DataSpec { location, labels: LabelKind::Coarse }).unwrap();
    check_images(&coarse, Part::Train, &[19, 18, 17]);
    assert_eq!((coarse.dataset.classes().len(), coarse.dataset.classes()[0].as_str()), (20, "coarse_0"));
}

#[test]
fn cifar_10_binary_joins_its_batches_in_order() {
    let batch = |index: u8| record(&[index], usize::from(index));
    let mut files: Vec<(String, Vec<u8>)> =
        (1..=5).map(|index| (format!("below/data_batch_{index}.bin"), batch(index - 1))).collect();
    files.push(("below/test_batch.bin".to_string(), batch(0)));
    let files: Files<'_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    // One level down, and without names of classes.
    let folder = folder_with(&files);
    let data = open_path(folder.path()).unwrap();
    check_images(&data, Part::Train, &[0, 1, 2, 3, 4]);
    check_images(&data, Part::Test, &[0]);
    assert_eq!((data.dataset.classes().len(), data.dataset.classes()[3].as_str()), (10, "class_003"));
    assert_eq!(data.provenance.kind, DataKind::Cifar10Binary);
}

#[test]
fn pickles_of_every_python_are_read() {
    for name in [
        "python2_test",
        "python3_protocol_2",
        "python3_protocol_3",
        "python3_protocol_4",
        "python3_protocol_5",
        "python3_fortran",
    ] {
        let folder = folder_with(&[
            ("train", fixture("python2_train")),
            ("test", fixture(name)),
            ("meta", fixture("python2_meta")),
        ]);
        let data = open_path(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        check_images(&data, Part::Train, &[99, 98, 97]);
        check_images(&data, Part::Test, &[99, 98]);
        assert_eq!(data.dataset.classes()[7], "fine_7");
        assert_eq!(data.provenance.kind, DataKind::Cifar100Python);
    }
}

#[test]
fn both_forms_give_equal_data() {
    let binary = folder_with(&[("train.bin", cifar_100_file(3)), ("test.bin", cifar_100_file(2))]);
    let python = folder_with(&[("train", fixture("python2_train")), ("test", fixture("python2_test"))]);
    let (binary, python) = (open_path(binary.path()).unwrap(), open_path(python.path()).unwrap());
    assert_eq!(binary.official, python.official);
    for index in 0..binary.dataset.len() {
        assert_eq!(binary.dataset.get(index).unwrap(), python.dataset.get(index).unwrap());
    }
}

#[test]
fn wrong_files_say_what_is_wrong() {
    let good = || cifar_100_file(2);
    let cases: Vec<(&str, Files<'_>, &[&str])> = vec![
        ("no test file", vec![("train.bin", good())], &["test.bin is missing"]),
        ("empty file", vec![("train.bin", good()), ("test.bin", vec![])], &["test.bin", "0 bytes"]),
        (
            "partial record",
            vec![("train.bin", good()), ("test.bin", good()[..6000].to_vec())],
            &["test.bin", "3074", "1 and 2926"],
        ),
        (
            "label out of range",
            vec![("train.bin", [good(), record(&[0, 100], 0)].concat()), ("test.bin", good())],
            &["train.bin", "record 2", "label 100", "100 classes"],
        ),
        (
            "too few names",
            vec![("train.bin", good()), ("test.bin", good()), ("fine_label_names.txt", b"cat\ndog\n".to_vec())],
            &["names 2 classes instead of 100"],
        ),
        ("no pickle", vec![("train", b"hello".to_vec()), ("test", good())], &["train", "not a pickle"]),
        (
            "truncated pickle",
            vec![("train", fixture("python2_train")[..5000].to_vec()), ("test", good())],
            &["train", "truncated"],
        ),
        ("meta as images", vec![("train", fixture("python2_meta")), ("test", good())], &["has no \"data\""]),
    ];
    for (case, files, expected) in cases {
        let folder = folder_with(&files);
        let message = open_error(folder.path()).to_string();
        assert!(expected.iter().all(|part| message.contains(part)), "{case}: {message}");
    }
}

#[test]
fn coarse_labels_are_for_cifar_100_only() {
    let error = open(&DataSpec { location: "glyphs".to_string(), labels: LabelKind::Coarse }).unwrap_err();
    assert!(matches!(error, DataError::InvalidOption { option: "labels", .. }), "{error}");
}

/// A pickled dict of `data` and labels, written by hand: protocol 2, everything in place.
fn hand_made(shape_rows: u8, dtype: &[u8], global: &[u8], labels: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}(U\x04datac".to_vec();
    bytes.extend_from_slice(global);
    bytes.extend_from_slice(b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K");
    bytes.push(shape_rows);
    bytes.extend_from_slice(b"M\x00\x0c\x86cnumpy\ndtype\nU");
    bytes.push(dtype.len() as u8);
    bytes.extend_from_slice(dtype);
    bytes.extend_from_slice(b"K\x00K\x01\x87R\x89T\x00\x0c\x00\x00");
    bytes.extend((0..3072).map(|place| plane_byte(0, place)));
    bytes.extend_from_slice(b"tbU\x0bfine_labels](");
    bytes.extend_from_slice(labels);
    bytes.extend_from_slice(b"eu.");
    bytes
}

#[test]
fn hostile_pickles_are_refused_and_not_run() {
    const ARRAY: &[u8] = b"numpy.core.multiarray\n_reconstruct\n";
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("good", hand_made(1, b"u1", ARRAY, b"K\x05"), ""),
        ("label too large", hand_made(1, b"u1", ARRAY, b"K\x64"), "label 100"),
        ("label below zero", hand_made(1, b"u1", ARRAY, b"J\xff\xff\xff\xff"), "label -1"),
        ("label no number", hand_made(1, b"u1", ARRAY, b"N"), "not a list of integers"),
        ("one label more", hand_made(1, b"u1", ARRAY, b"K\x05K\x05"), "1 images and 2 labels"),
        ("more rows than bytes", hand_made(9, b"u1", ARRAY, b"K\x05"), "[9, 3072]"),
        ("floats", hand_made(1, b"f4", ARRAY, b"K\x05"), "uint8"),
        ("a call of the system", hand_made(1, b"u1", b"os\nsystem\n", b"K\x05"), "not a numpy array"),
        ("a string longer than the file", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "truncated"),
        ("a list within itself", b"\x80\x02]q\x00h\x00a.".to_vec(), "not a pickled dict"),
        ("an instruction for objects", b"\x80\x02(i__main__\nEvil\n.".to_vec(), "0x69"),
        ("millions of empty lists", [b"\x80\x02".to_vec(), vec![b']'; 5_000_000]].concat(), "too many values"),
    ];
    for (case, bytes, expected) in cases {
        let folder = folder_with(&[("train", bytes.clone()), ("test", hand_made(1, b"u1", ARRAY, b"K\x05"))]);
        match open_path(folder.path()) {
            Ok(_) => assert!(expected.is_empty(), "{case} must not open"),
            Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{case}: {error}"),
        }
    }
}

#[test]
fn no_change_of_one_byte_panics() {
    // Every place outside of the pixels, where the structure is, with several other bytes.
    let whole = hand_made(1, b"u1", b"numpy.core.multiarray\n_reconstruct\n", b"K\x05");
    let folder = folder_with(&[("test", whole.clone())]);
    for place in (0..150).chain(whole.len() - 40..whole.len()) {
        for byte in [b'.', b'(', b'1', b'R', b'b', b'u', b'h', 0x00, 0x85, 0x94, 0xff] {
            let mut changed = whole.clone();
            changed[place] = byte;
            fs::write(folder.path().join("train"), &changed).unwrap();
            // Some changes are harmless; what counts is that each ends in a result.
            let _ = open_path(folder.path());
        }
    }
}
