//! The built-in set.

use taper_data::{DataKind, DataSpec, Dataset, Glyphs, Part, Recognised, open};

#[test]
fn parts_are_balanced_and_named() {
    let data = open(&DataSpec::new("glyphs")).unwrap();
    let set = &data.dataset;
    assert_eq!((set.len(), set.classes().len()), (14_000, 100));
    for (part, images_per_class) in [(Part::Train, 100), (Part::Val, 20), (Part::Test, 20)] {
        let mut counts = [0; 100];
        for &index in data.official.get(part) {
            counts[set.label(index) as usize] += 1;
        }
        assert_eq!(counts, [images_per_class; 100], "{part}");
    }
    assert_eq!(set.name(10_001), "val/00001");
    assert_eq!(set.classes()[61], "star-striped");
    assert_eq!(data.provenance.kind, DataKind::Glyphs);
    assert!(matches!(data.provenance.official, Recognised::Official { .. }));
}

#[test]
fn an_image_is_its_index_and_nothing_else() {
    let glyphs = Glyphs::new();
    let (forward, backward): (Vec<_>, Vec<_>) =
        (0..300).map(|index| (glyphs.get(index).unwrap(), glyphs.get(299 - index).unwrap())).unzip();
    assert!(forward.iter().eq(backward.iter().rev()));
    assert_ne!(forward[0].image, forward[100].image, "two images of one class differ");
    assert!(glyphs.get(14_000).is_err());
}

#[test]
fn the_pixels_are_pinned() {
    // The revision of the set has to be counted up when these change: old runs saw other images.
    let glyphs = Glyphs::new();
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for index in (0..14_000).step_by(97) {
        for byte in glyphs.get(index).unwrap().image.pixels() {
            // FNV-1a.
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    assert_eq!(sum, 14_068_559_832_987_846_969);
}

#[test]
fn every_image_has_a_glyph_with_contrast() {
    let glyphs = Glyphs::new();
    for index in 0..1000 {
        let image = glyphs.get(index).unwrap().image;
        let brightness = |pixel: &[u8]| pixel.iter().map(|byte| u32::from(*byte)).sum::<u32>() / 3;
        let all: Vec<u32> = image.pixels().chunks_exact(3).map(brightness).collect();
        let range = all.iter().max().unwrap() - all.iter().min().unwrap();
        assert!(range > 50, "{}: {range}", glyphs.name(index));
    }
}
