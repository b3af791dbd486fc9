//! CUB-200 by its own lists, on small folders of the same form.

use taper_data::{Covers, DataError, DataKind, OpenedData, Part};

use crate::files::{Files, folder_with, open_error, open_path, png};

const CLASSES: &str = "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n";
const IMAGES: &str = "1 001.Black_footed_Albatross/A_0046_18.jpg\n2 001.Black_footed_Albatross/A_0009_34.jpg\n\
                      3 002.Laysan_Albatross/L_0002_1027.jpg\n";
const LABELS: &str = "1 1\n2 1\n3 2\n";
const SPLIT: &str = "1 0\n2 1\n3 1\n";

fn release_2011<'a>(images: &str, labels: &str, split: &str) -> Files<'a> {
    vec![
        ("classes.txt", CLASSES.into()),
        ("images.txt", images.into()),
        ("image_class_labels.txt", labels.into()),
        ("train_test_split.txt", split.into()),
        ("bounding_boxes.txt", "1 60.0 27.0 325.0 304.0\n".into()),
        ("images/001.Black_footed_Albatross/A_0046_18.jpg", png(3, 4, [1; 3])),
        ("images/001.Black_footed_Albatross/A_0009_34.jpg", png(3, 4, [2; 3])),
        ("images/001.Black_footed_Albatross/not_listed.jpg", png(3, 4, [2; 3])),
        ("images/002.Laysan_Albatross/L_0002_1027.jpg", png(3, 4, [3; 3])),
    ]
}

fn names(data: &OpenedData, part: Part) -> Vec<String> {
    data.official.get(part).iter().map(|index| data.dataset.name(*index)).collect()
}

#[test]
fn the_release_of_2011_is_read_by_its_lists() {
    let folder = folder_with(&release_2011(IMAGES, LABELS, SPLIT));
    let data = open_path(folder.path()).unwrap();
    assert_eq!(data.dataset.classes(), ["001.Black_footed_Albatross", "002.Laysan_Albatross"]);
    let (first, second) =
        ("images/001.Black_footed_Albatross/A_0046_18.jpg", "images/001.Black_footed_Albatross/A_0009_34.jpg");
    assert_eq!(names(&data, Part::Train), [second, "images/002.Laysan_Albatross/L_0002_1027.jpg"]);
    assert_eq!(names(&data, Part::Test), [first]);
    assert!(names(&data, Part::Val).is_empty());
    assert_eq!((data.dataset.labels(), data.dataset.get(2).unwrap().image.pixel(0, 0)), (vec![0, 0, 1], [3; 3]));
    let provenance = data.provenance;
    assert_eq!((provenance.kind, provenance.covers), (DataKind::Cub2002011, Covers::Listing));
    assert_eq!(provenance.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().len(), 4);

    // The folder that the archive unpacks to, one level down.
    let nested: Vec<(String, Vec<u8>)> = release_2011(IMAGES, LABELS, SPLIT)
        .into_iter()
        .map(|(name, bytes)| (format!("CUB_200_2011/{name}"), bytes))
        .collect();
    let nested: Files<'_> = nested.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    assert_eq!(open_path(folder_with(&nested).path()).unwrap().dataset.len(), 3);
}

#[test]
fn the_release_of_2010_is_read_by_its_lists() {
    let folder = folder_with(&[
        ("lists/classes.txt", "001.Black_footed_Albatross\n002.Laysan_Albatross\n".into()),
        ("lists/train.txt", "001.Black_footed_Albatross/A_0001_29.jpg\n002.Laysan_Albatross/L_0002_10.jpg\n".into()),
        ("lists/test.txt", "001.Black_footed_Albatross/A_0003_81.jpg\n".into()),
        ("images/001.Black_footed_Albatross/A_0001_29.jpg", png(3, 4, [1; 3])),
        ("images/001.Black_footed_Albatross/._A_0001_29.jpg", vec![]),
        ("images/001.Black_footed_Albatross/A_0003_81.jpg", png(3, 4, [3; 3])),
    ]);
    let data = open_path(folder.path()).unwrap();
    assert_eq!(data.provenance.kind, DataKind::Cub2002010);
    assert_eq!((data.official.train, data.official.test), (vec![0, 1], vec![2]));
    assert_eq!((data.dataset.labels(), data.dataset.classes().len()), (vec![0, 1, 0], 2));
    assert_eq!(data.dataset.get(2).unwrap().image.pixel(0, 0), [3; 3]);
    // Listed, not there: an image that cannot be read.
    assert!(matches!(data.dataset.get(1), Err(DataError::Io { .. })));
}

#[test]
fn lists_that_contradict_each_other_are_named_with_the_line() {
    let cases: [(&str, &str, &str, &[&str]); 8] = [
        (IMAGES, "1 1\n2 1\n3 9\n", SPLIT, &["image_class_labels.txt", "line 3", "\"9\"", "1 to 2"]),
        (IMAGES, "1 1\n2 1\n", SPLIT, &["image_class_labels.txt", "2 lines for the 3 images"]),
        (IMAGES, LABELS, "1 0\n2 2\n3 1\n", &["train_test_split.txt", "line 2", "\"2\""]),
        (IMAGES, LABELS, "1 0\n3 1\n2 1\n", &["train_test_split.txt", "line 2", "expected the number 2"]),
        ("1 ../../x.jpg\n", "1 1\n", "1 1\n", &["images.txt", "line 1", "no path below images"]),
        ("1 /etc/x.jpg\n", "1 1\n", "1 1\n", &["images.txt", "no path below images"]),
        ("1 a/x.jpg\n2 a/x.jpg\n", "1 1\n2 1\n", "1 1\n2 0\n", &["images.txt", "listed twice"]),
        ("", "", "", &["images.txt", "no image is listed"]),
    ];
    for (images, labels, split, words) in cases {
        let error = open_error(folder_with(&release_2011(images, labels, split)).path());
        assert!(matches!(error, DataError::Malformed { .. }), "{error}");
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    let mut without_photos = release_2011(IMAGES, LABELS, SPLIT);
    without_photos.truncate(5);
    assert!(open_error(folder_with(&without_photos).path()).to_string().contains("not the photos"));
}
