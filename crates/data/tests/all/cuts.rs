//! Epochs without pixels: cut from the sources, they are the loader's.

use std::sync::Arc;

use taper_data::{
    ArrayDataset, Compose, Cut, Interpolation, LastBatch, Loader, OnBad, Order, PadMode, Result, Transform, rng,
};

const SIZE: [usize; 2] = [7, 9];
const SHUFFLED: Order = Order::Shuffled { seed: 3, epoch: 1 };

fn loader(transforms: Vec<Transform>) -> Loader {
    let mut bytes = rng::for_sample(0, 0, 0);
    let pixels = (0..50 * SIZE[0] * SIZE[1] * 3).map(|_| bytes.next_u32() as u8).collect();
    let names = (0..50).map(|index| format!("{index}")).collect();
    let classes = (0..5).map(|class| format!("class {class}")).collect();
    let set = ArrayDataset::new(SIZE, pixels, (0..50).map(|index| index % 5).collect(), names, classes).unwrap();
    Loader {
        dataset: Arc::new(set),
        indices: (3..50).collect(),
        transform: Compose(transforms),
        batch_size: 8,
        workers: 0,
        prefetch: 1,
        last: LastBatch::Keep,
        bad: OnBad::Fail,
        seed: 5,
    }
}

fn crop(size: [usize; 2], padding: usize, mode: PadMode) -> Transform {
    Transform::RandomCrop { size, padding, mode }
}

fn flip() -> Transform {
    Transform::HorizontalFlip { probability: 0.5 }
}

/// The pixels that a cut names.
fn taken(pixels: &[u8], cut: &Cut, [height, width]: [usize; 2]) -> Vec<u8> {
    let mut image = Vec::new();
    for row in 0..height as i32 {
        for column in 0..width as i32 {
            let column = if cut.is_mirrored { width as i32 - 1 - column } else { column };
            let (y, x) = (cut.top + row, cut.left + column);
            let is_inside = (0..SIZE[0] as i32).contains(&y) && (0..SIZE[1] as i32).contains(&x);
            let at = ((cut.index * SIZE[0] + y.max(0) as usize) * SIZE[1] + x.max(0) as usize) * 3;
            image.extend_from_slice(if is_inside { &pixels[at..at + 3] } else { &[0; 3] });
        }
    }
    image
}

#[test]
fn cuts_of_the_sources_are_the_batches() {
    let cases = [
        vec![],
        vec![crop(SIZE, 2, PadMode::Zero), flip()],
        vec![flip(), crop([6, 9], 3, PadMode::Zero), flip()],
        vec![crop([5, 4], 0, PadMode::Reflect), flip(), Transform::CenterCrop { size: [3, 3] }],
        vec![flip(), crop([5, 4], 0, PadMode::Zero), crop([2, 3], 0, PadMode::Zero)],
        vec![
            Transform::ResizeExact { size: SIZE, interpolation: Interpolation::Bilinear },
            Transform::CenterCrop { size: [6, 5] },
        ],
    ];
    for transforms in cases {
        let loader = loader(transforms);
        let what = format!("{:?}", loader.transform);
        let pixels = loader.dataset.array().unwrap().pixels;
        for order in [Order::Sequential, SHUFFLED] {
            for first in [0, 4, 100] {
                let expected: Result<Vec<_>> = loader.epoch_from(order, first).collect();
                let found: Result<Vec<_>> = loader.cuts_from(SIZE, order, first).unwrap().collect();
                let (expected, found) = (expected.unwrap(), found.unwrap());
                assert_eq!(found.len(), expected.len(), "{what}");
                for (found, expected) in found.iter().zip(&expected) {
                    assert_eq!(Some(found.size), loader.cut_size(SIZE), "{what}");
                    assert_eq!(found.labels, expected.labels, "{what}");
                    assert_eq!(found.cuts.iter().map(|cut| cut.index).collect::<Vec<_>>(), expected.indices);
                    let images: Vec<u8> = found.cuts.iter().flat_map(|cut| taken(pixels, cut, found.size)).collect();
                    assert!(images == expected.images, "{what}, {order:?} from {first}");
                }
            }
        }
    }
}

#[test]
fn what_is_more_than_a_cut_is_none() {
    let cases = [
        crop(SIZE, 2, PadMode::Reflect),
        crop([12, 9], 2, PadMode::Zero),
        Transform::VerticalFlip { probability: 0.5 },
        Transform::ColorJitter { brightness: 0.1, contrast: 0.0, saturation: 0.0, hue: 0.0 },
        Transform::Resize { side: 14, interpolation: Interpolation::Bilinear },
        Transform::CenterCrop { size: [20, 20] },
    ];
    for transform in cases {
        assert_eq!(loader(vec![transform.clone()]).cut_size(SIZE), None, "{transform:?}");
    }
    // Black that comes between two crops is no part of the source.
    let twice = vec![crop([5, 5], 0, PadMode::Zero), crop([5, 5], 1, PadMode::Zero)];
    assert_eq!(loader(twice).cut_size(SIZE), None);
    assert_eq!(loader(vec![crop([5, 5], 1, PadMode::Zero), flip()]).cut_size(SIZE), Some([5, 5]));
}

#[test]
fn settings_are_checked_and_surprises_are_errors() {
    let wrong = Loader { batch_size: 0, ..loader(vec![]) };
    assert!(wrong.cuts_from(SIZE, SHUFFLED, 0).is_err());
    let more = loader(vec![crop(SIZE, 2, PadMode::Reflect)]);
    let batch = more.cuts_from(SIZE, SHUFFLED, 0).unwrap().next().unwrap();
    assert!(batch.unwrap_err().to_string().contains("more than a cut"));
}
