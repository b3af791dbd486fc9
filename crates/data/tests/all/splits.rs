//! Stratified splits, and splits written down.

use taper_data::{ArrayDataset, DataError, Part, Split, SplitManifest, ValSize};

/// So many images of each class, in turn until a class has no more.
fn labels(counts: &[usize]) -> Vec<u32> {
    let most = counts.iter().max().copied().unwrap_or(0);
    (0..most)
        .flat_map(|round| (0..counts.len()).filter(move |class| counts[*class] > round))
        .map(|class| class as u32)
        .collect()
}

#[test]
fn every_class_gives_its_share() {
    let cases: [(&[usize], ValSize, &[usize]); 7] = [
        (&[10, 10], ValSize::Count(4), &[2, 2]),
        (&[100, 100, 100], ValSize::Fraction(0.1), &[10, 10, 10]),
        (&[50, 30, 20], ValSize::Count(10), &[5, 3, 2]),
        // Shares 1.67 each: the remainders are equal, so that the first classes get one more.
        (&[10, 10, 10], ValSize::Count(5), &[2, 2, 1]),
        // Shares 9.9 and 0.1: the larger remainder gets the one that is left.
        (&[99, 1], ValSize::Count(10), &[10, 0]),
        // A class of one keeps its image to learn from, whatever its share.
        (&[1, 1, 10], ValSize::Count(9), &[0, 0, 9]),
        (&[2, 2], ValSize::Fraction(0.5), &[1, 1]),
    ];
    for (counts, size, expected) in cases {
        let labels = labels(counts);
        let all: Vec<usize> = (0..labels.len()).collect();
        let split = Split::stratified(&labels, &all, size, 1).unwrap();
        let in_val = |class| split.val.iter().filter(|index| labels[**index] == class as u32).count();
        let found: Vec<usize> = (0..counts.len()).map(in_val).collect();
        assert_eq!(found, expected, "{counts:?} {size:?}");
        let mut both = [split.train.clone(), split.val.clone()].concat();
        both.sort_unstable();
        assert_eq!(both, all);
        assert!(split.train.is_sorted() && split.val.is_sorted() && split.test.is_empty());
    }
}

#[test]
fn only_seed_and_members_decide() {
    let labels = labels(&[40, 40]);
    let even: Vec<usize> = (0..80).step_by(2).collect();
    let split = |candidates: &[usize], seed| Split::stratified(&labels, candidates, ValSize::Count(10), seed).unwrap();
    let reversed: Vec<usize> = even.iter().rev().copied().collect();
    assert_eq!(split(&even, 3), split(&reversed, 3));
    assert_ne!(split(&even, 3), split(&even, 4));
    assert!(split(&even, 3).val.iter().all(|index| index % 2 == 0));
}

#[test]
fn impossible_sizes_are_refused() {
    let labels = labels(&[2, 2]);
    for size in [
        ValSize::Count(0),
        ValSize::Count(3),
        ValSize::Fraction(0.0),
        ValSize::Fraction(1.0),
        ValSize::Fraction(f64::NAN),
        ValSize::Fraction(0.01),
    ] {
        let error = Split::stratified(&labels, &[0, 1, 2, 3], size, 0).unwrap_err();
        assert!(matches!(error, DataError::InvalidOption { option: "size of val", .. }), "{size:?}: {error}");
    }
    assert!(Split::stratified(&labels, &[4], ValSize::Count(1), 0).is_err());
    assert!(Split::stratified(&labels, &[], ValSize::Count(1), 0).is_err());
}

#[test]
fn parts_read_and_write_their_names() {
    for part in Part::ALL {
        assert_eq!(part.to_string().parse::<Part>().unwrap(), part);
        assert_eq!(serde_json::to_string(&part).unwrap(), format!("\"{part}\""));
    }
    assert!("valid".parse::<Part>().unwrap_err().to_string().contains("train, val, test"));
}

fn set(names: &[&str]) -> ArrayDataset {
    let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
    let labels = vec![0; names.len()];
    ArrayDataset::new([1, 1], vec![0; 3 * names.len()], labels, names, vec!["only".to_string()]).unwrap()
}

#[test]
fn a_manifest_brings_the_split_back() {
    let before = set(&["a", "b", "c", "d"]);
    let split = Split { train: vec![0, 3], val: vec![1], test: vec![2] };
    let manifest = split.to_manifest(&before).unwrap();
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(json, r#"{"train":["a","d"],"val":["b"],"test":["c"]}"#);
    let manifest: SplitManifest = serde_json::from_str(&json).unwrap();
    assert_eq!(manifest.resolve(&before).unwrap(), split);
    // The same images at other indices.
    let after = set(&["d", "c", "b", "a"]);
    assert_eq!(manifest.resolve(&after).unwrap(), Split { train: vec![0, 3], val: vec![2], test: vec![1] });
}

#[test]
fn a_manifest_of_other_images_is_refused_by_name() {
    let split = Split { train: vec![0, 1], val: vec![2], test: vec![] };
    let manifest = split.to_manifest(&set(&["a", "b", "c"])).unwrap();
    let cases: [(&[&str], &[&str], &[&str]); 3] =
        [(&["a", "b"], &["c"], &[]), (&["a", "b", "c", "new"], &[], &["new"]), (&["a", "b", "see"], &["c"], &["see"])];
    for (names, missing, surplus) in cases {
        let error = manifest.resolve(&set(names)).unwrap_err();
        let message = error.to_string();
        assert!(missing.iter().chain(surplus).all(|name| message.contains(name)), "{message}");
        match error {
            DataError::SplitMismatch { missing: found_missing, surplus: found_surplus } => {
                assert_eq!((found_missing, found_surplus), (owned(missing), owned(surplus)));
            }
            other => panic!("{other}"),
        }
    }
    let twice = SplitManifest { val: vec!["a".to_string()], ..manifest };
    assert!(matches!(twice.resolve(&set(&["a", "b", "c"])), Err(DataError::SplitDuplicate { .. })));
    assert!(Split { train: vec![9], ..Split::default() }.to_manifest(&set(&["a"])).is_err());
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_string()).collect()
}
