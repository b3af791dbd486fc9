//! Image folders, and what is no data set.

use taper_data::{Covers, DataError, DataKind, Part};

use crate::files::{Files, folder_with, open_error, open_path, png, write};

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
        ("train/loose.jpg", png(2, 3, RED)),
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
    // The note, the hidden image and the file beside the class folders; what is beside `train` and `val` is not looked at.
    assert_eq!(provenance.num_ignored_files, 3);
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
        assert!(error.to_string().contains("neither CIFAR files nor CUB lists nor folders"), "{error}");
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

#[test]
fn one_class_is_nothing_to_learn() {
    for files in
        [vec![("a/1.png", png(1, 1, RED))], vec![("train/a/1.png", png(1, 1, RED)), ("val/a/2.png", png(1, 1, RED))]]
    {
        let error = open_error(folder_with(&files).path());
        assert!(matches!(&error, DataError::OneClass { class, .. } if class == "a"), "{error}");
        assert!(error.to_string().contains("at least two"), "{error}");
    }
}

#[test]
fn names_are_taken_as_they_are() {
    let odd =
        ["with space.png", "ünïcode 鳥.png", "quote\"'.png", "-dash.png", "two.dots.PNG", "new\nline.png", "%s{}.png"];
    let mut files: Files<'_> = vec![("other/1.png", png(1, 1, RED))];
    let names: Vec<String> = odd.iter().map(|name| format!("odd class/{name}")).collect();
    files.extend(names.iter().map(|name| (name.as_str(), png(2, 2, RED))));
    let folder = folder_with(&files);
    let data = open_path(folder.path()).unwrap();
    assert_eq!((data.dataset.len(), data.dataset.classes()), (8, &["odd class".to_string(), "other".to_string()][..]));
    let mut found: Vec<String> = (0..7).map(|index| data.dataset.name(index)).collect();
    assert!((0..7).all(|index| data.dataset.get(index).is_ok()));
    let mut expected = names;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[cfg(unix)]
#[test]
fn names_that_are_no_text_can_be_files_but_not_classes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let folder = folder_with(&[("a/1.png", png(1, 1, RED)), ("b/1.png", png(1, 1, RED))]);
    let latin = OsStr::from_bytes(b"caf\xe9.png");
    write(&folder.path().join("a").join(latin), &png(2, 2, RED));
    let data = open_path(folder.path()).unwrap();
    assert_eq!(data.dataset.name(1), "a/caf\\xE9.png");
    assert_eq!(data.dataset.get(1).unwrap().image.size(), [2, 2]);
    // A file that has the escaped name for its own cannot be told apart.
    write(&folder.path().join("a/caf\\xE9.png"), &png(2, 2, RED));
    assert!(open_error(folder.path()).to_string().contains("rename one of them"));

    write(&folder.path().join(OsStr::from_bytes(b"cl\xe9")).join("1.png"), &png(1, 1, RED));
    assert!(open_error(folder.path()).to_string().contains("not UTF-8; rename it"));
}
