//! The `.tar.gz` form, whole and hostile.

use std::path::PathBuf;

use taper_data::{DataError, Part};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::files::{cifar_100_file, fixture, folder_with, gzip, open_error, open_path};

/// An entry as its header says it, whether that is true or not.
struct Entry {
    name: &'static str,
    kind: EntryType,
    bytes: Vec<u8>,
    claimed: u64,
}

fn file(name: &'static str, bytes: Vec<u8>) -> Entry {
    Entry { name, kind: EntryType::Regular, claimed: bytes.len() as u64, bytes }
}

/// A tar whose names and sizes are written as given; a library would refuse to write the hostile ones.
fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_size(entry.claimed);
        header.set_cksum();
        builder.append(&header, entry.bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn archive(bytes: Vec<u8>) -> (TempDir, PathBuf) {
    let folder = folder_with(&[("some.tar.gz", bytes)]);
    let path = folder.path().join("some.tar.gz");
    (folder, path)
}

fn good() -> Vec<Entry> {
    vec![
        Entry { name: "cifar-100-binary/", kind: EntryType::Directory, bytes: vec![], claimed: 0 },
        file("cifar-100-binary/test.bin", cifar_100_file(2)),
        file("cifar-100-binary/readme.html", b"<html>".to_vec()),
        file("cifar-100-binary/train.bin", cifar_100_file(3)),
    ]
}

#[test]
fn an_archive_is_its_folder() {
    let (_guard, path) = archive(gzip(&tar(&good())));
    let packed = open_path(&path).unwrap();
    let folder = folder_with(&[("train.bin", cifar_100_file(3)), ("test.bin", cifar_100_file(2))]);
    let plain = open_path(folder.path()).unwrap();
    assert_eq!(packed.official, plain.official);
    for index in 0..plain.dataset.len() {
        assert_eq!(packed.dataset.get(index).unwrap(), plain.dataset.get(index).unwrap());
    }
    let files = &packed.provenance.files;
    assert_eq!((files.len(), files[0].name.as_str()), (1, "some.tar.gz"));
    assert_eq!(files[0].bytes, std::fs::metadata(&path).unwrap().len());
}

#[test]
fn the_python_form_is_read_from_an_archive() {
    let entries = [
        file("cifar-100-python/meta", fixture("python2_meta")),
        file("cifar-100-python/test", fixture("python2_test")),
        file("cifar-100-python/train", fixture("python2_train")),
    ];
    let (_guard, path) = archive(gzip(&tar(&entries)));
    let data = open_path(&path).unwrap();
    assert_eq!(data.official.get(Part::Train).len(), 3);
    assert_eq!(data.dataset.classes()[1], "fine_1");
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let link = |kind| Entry { name: "cifar-100-binary/test.bin", kind, bytes: vec![], claimed: 0 };
    let cases: Vec<(Entry, &str, &str)> = vec![
        (file("../train.bin", vec![]), "../train.bin", "leaves its folder"),
        (file("a/../../train.bin", vec![]), "a/../../train.bin", "leaves its folder"),
        (file("..\\train.bin", vec![]), "..\\train.bin", "leaves its folder"),
        (file("/etc/train.bin", vec![]), "/etc/train.bin", "absolute"),
        (file("C:/train.bin", vec![]), "C:/train.bin", "absolute"),
        (link(EntryType::Symlink), "test.bin", "is a link"),
        (link(EntryType::Link), "test.bin", "is a link"),
        (link(EntryType::Fifo), "test.bin", "neither a file nor a folder"),
        (link(EntryType::Block), "test.bin", "neither a file nor a folder"),
    ];
    for (bad, name, reason) in cases {
        // Behind good entries: nothing of the archive may be used.
        let mut entries = good();
        entries.push(bad);
        let (_guard, path) = archive(gzip(&tar(&entries)));
        match open_error(&path) {
            DataError::UnsafeEntry { entry, reason: found, .. } => {
                assert!(entry.contains(name.trim_start_matches("cifar")) && found.contains(reason), "{entry} {found}");
            }
            other => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn a_long_name_cannot_hide_a_hostile_path() {
    let long_name =
        Entry { name: "././@LongLink", kind: EntryType::GNULongName, claimed: 13, bytes: b"../train.bin\0".to_vec() };
    let (_guard, path) = archive(gzip(&tar(&[long_name, file("harmless", vec![])])));
    assert!(matches!(open_error(&path), DataError::UnsafeEntry { .. }));
    let record = b"21 path=../train.bin\n".to_vec();
    let pax = Entry { name: "PaxHeaders/x", kind: EntryType::XHeader, claimed: record.len() as u64, bytes: record };
    let (_guard, path) = archive(gzip(&tar(&[pax, file("harmless", vec![])])));
    assert!(matches!(open_error(&path), DataError::UnsafeEntry { .. }));
}

#[test]
fn broken_archives_say_what_is_wrong() {
    let whole = gzip(&tar(&good()));
    let tar_bytes = tar(&good());
    let claiming =
        |claimed: u64| tar(&[Entry { name: "train.bin", kind: EntryType::Regular, bytes: cifar_100_file(1), claimed }]);
    let mut wrong_sum = whole.clone();
    let sum_at = wrong_sum.len() - 8;
    wrong_sum[sum_at] ^= 1;
    let twice = tar(&[file("train.bin", cifar_100_file(1)), file("a/train.bin", cifar_100_file(1))]);
    let mixed = tar(&[file("train.bin", cifar_100_file(1)), file("test_batch.bin", vec![])]);
    let long = Entry { name: "@LongLink", kind: EntryType::GNULongName, bytes: vec![b'a'; 70_000], claimed: 70_000 };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("truncated gzip", whole[..whole.len() / 2].to_vec(), "truncated"),
        ("gzip without its end", whole[..whole.len() - 4].to_vec(), "truncated"),
        ("wrong sum", wrong_sum, "malformed"),
        ("truncated tar", gzip(&tar_bytes[..4000]), "truncated"),
        ("no gzip", tar_bytes, "malformed"),
        ("empty", vec![], "malformed"),
        ("gigantic size", gzip(&claiming(1 << 40)), "claims 1099511627776 bytes"),
        ("half a gigabyte that is not there", gzip(&claiming(3074 * 160_000)), "truncated in record 1 of 160000"),
        ("one file twice", gzip(&twice), "twice"),
        ("files of two sets", gzip(&mixed), "test.bin is missing"),
        ("a long long name", gzip(&tar(&[long])), "extension of 70000 bytes"),
        ("nothing of CIFAR", gzip(&tar(&[file("readme", vec![])])), "no file of CIFAR"),
    ];
    for (case, bytes, expected) in cases {
        let (_guard, path) = archive(bytes);
        let message = open_error(&path).to_string();
        assert!(message.contains("some.tar.gz") && message.contains(expected), "{case}: {message}");
    }
}
