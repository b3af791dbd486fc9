//! The real CIFAR-100, where the environment variable TAPER_TEST_DATA names a folder with `cifar-100-binary` in it.

use std::path::PathBuf;

use taper_data::{DataSpec, LabelKind, Part, Split, ValSize, channel_stats, open};

#[test]
fn cifar_100_has_its_known_figures() {
    let Some(root) = std::env::var_os("TAPER_TEST_DATA").map(PathBuf::from) else {
        eprintln!("skipped: TAPER_TEST_DATA is not set");
        return;
    };
    let location = root.join("cifar-100-binary").to_str().unwrap().to_string();
    let data = open(&DataSpec::new(location.clone())).unwrap();
    assert_eq!((data.official.train.len(), data.official.test.len()), (50_000, 10_000));
    for (part, images_per_class) in [(Part::Train, 500), (Part::Test, 100)] {
        let mut counts = [0; 100];
        for &index in data.official.get(part) {
            counts[data.dataset.label(index) as usize] += 1;
        }
        assert_eq!(counts, [images_per_class; 100], "{part}");
    }
    assert_eq!((data.dataset.classes()[0].as_str(), data.dataset.classes()[99].as_str()), ("apple", "worm"));

    let stats = channel_stats(&*data.dataset, &data.official.train).unwrap();
    // Published to five digits.
    let expected = [0.50708, 0.48655, 0.44092, 0.26733, 0.25644, 0.27615];
    for (found, expected) in stats.mean.iter().chain(&stats.std).zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{stats:?}");
    }

    let split = Split::stratified(&data.dataset.labels(), &data.official.train, ValSize::Count(5_000), 0).unwrap();
    assert_eq!((split.train.len(), split.val.len()), (45_000, 5_000));

    let coarse = open(&DataSpec { location, labels: LabelKind::Coarse }).unwrap();
    assert_eq!(coarse.dataset.classes().len(), 20);
    let in_superclass = |class| coarse.dataset.labels().iter().filter(|label| **label == class).count();
    assert!((0..20).all(|class| in_superclass(class) == 3_000));
}
