//! Random changes of small files: an answer or an error, never a panic, and no more memory than the file excuses.

use crate::{data, fixture, parse};

/// Steele, Lea and Flood 2014, "SplitMix".
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One to four changes: other bytes, cuts, repeats, extreme lengths.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let (at, length) = (random.below(bytes.len()), random.below(16));
        let end = (at + length).min(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copied = bytes[at..end].to_vec();
                bytes.splice(at..at, copied);
            }
            _ => bytes[at..end].fill(if random.below(2) == 0 { 0xff } else { 0x7f }),
        }
    }
}

#[test]
fn no_change_panics_or_grows() {
    let mut random = Random(0);
    let golden = std::fs::read(data("golden/weights/torch_files.safetensors")).unwrap();
    let files = ["state_zip.pth", "state_legacy.pth", "nested_zip.pth", "nested_legacy.pth", "hostile_legacy.pth"];
    let files = files.into_iter().map(fixture).chain([golden]);
    let (mut num_read, mut num_refused) = (0, 0);
    for file in files {
        for _ in 0..3000 {
            let mut bytes = file.clone();
            mutate(&mut bytes, &mut random);
            match parse(&bytes) {
                Ok(read) => {
                    let num_values: usize = read.tensors.values().map(|tensor| tensor.elem_count()).sum();
                    assert!(num_values <= 2 * bytes.len(), "{num_values} values of {} bytes", bytes.len());
                    num_read += 1;
                }
                Err(error) => {
                    assert!(error.to_string().len() < 4000);
                    num_refused += 1;
                }
            }
        }
    }
    // Both ends are reached, or the changes would show nothing.
    assert!(num_read > 500 && num_refused > 5000, "{num_read} read, {num_refused} refused");
}

#[test]
fn every_cut_is_refused_or_read() {
    for name in ["state_zip.pth", "state_legacy.pth"] {
        let file = fixture(name);
        for length in 0..file.len() {
            assert!(parse(&file[..length]).is_err(), "{name} cut to {length} bytes");
        }
    }
}
