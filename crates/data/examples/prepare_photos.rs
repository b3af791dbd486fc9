//! Prepares photos for a network on one thread, and says how many a second.
//!
//! ```sh
//! cargo run --release -p taper-data --example prepare_photos -- OUT SIDE bilinear FILE...
//! ```
//!
//! Each file is decoded, its shorter side scaled to 8/7 of SIDE and the central SIDE×SIDE pixels cut out, which OUT then
//! holds one after the other, `[n, SIDE, SIDE, 3]` bytes; `-` for OUT writes nothing. `xtask/peer/preprocess.py` compares
//! them with what torchvision makes of the same files. Files that cannot be read are named and left out.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use taper_data::{Interpolation, Preprocess, decode, rng};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [out, side, interpolation, files @ ..] = &arguments[..] else { return usage() };
    let interpolation = match interpolation.as_str() {
        "bilinear" => Interpolation::Bilinear,
        "bicubic" => Interpolation::Bicubic,
        _ => return usage(),
    };
    let Ok(side) = side.parse::<usize>() else { return usage() };
    let preprocess = Preprocess {
        input_size: [side; 2],
        resize: Some((side as f64 / 0.875).round() as usize),
        interpolation,
        ..Preprocess::imagenet()
    };
    let (mut prepared, mut num_images) = (Vec::new(), 0);
    let (mut decoding, mut scaling) = (Duration::ZERO, Duration::ZERO);
    for file in files {
        let started = Instant::now();
        let image = match decode(Path::new(file)) {
            Ok(image) => image,
            Err(error) => {
                report(&format!("{error}"));
                continue;
            }
        };
        decoding += started.elapsed();
        let started = Instant::now();
        let Ok(image) = preprocess.eval_transform().apply(image, &mut rng::for_sample(0, 0, 0)) else {
            report(&format!("cannot scale {file}"));
            continue;
        };
        scaling += started.elapsed();
        num_images += 1;
        if out != "-" {
            prepared.extend_from_slice(image.pixels());
        }
    }
    let per_second = |time: Duration| f64::from(num_images) / time.as_secs_f64();
    report(&format!(
        "{num_images} of {} files; {:.0} images/s: decoding {:.0}, scaling and cropping {:.0}",
        files.len(),
        per_second(decoding + scaling),
        per_second(decoding),
        per_second(scaling),
    ));
    if out != "-" && std::fs::write(out, prepared).is_err() {
        report(&format!("cannot write {out}"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    report("prepare_photos OUT SIDE bilinear|bicubic FILE...");
    ExitCode::from(2)
}

#[allow(clippy::print_stderr, reason = "a program talks to its user")]
fn report(text: &str) {
    eprintln!("{text}");
}
