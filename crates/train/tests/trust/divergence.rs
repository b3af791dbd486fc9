//! Runs whose values stop being numbers.

use taper_train::{Checkpoint, Divergence, FitConfig, OnNonfinite, Outcome, TrainError, Weights};

use crate::run::{Run, assert_same, files};

fn with(lr: f64, on_nonfinite: OnNonfinite) -> Run {
    let run = Run::default();
    Run { lr, config: FitConfig { on_nonfinite, clip_norm: None, ..run.config }, ..run }
}

/// A rate that diverges, where a tenth of it does not.
fn rate_that_is_just_too_high() -> f64 {
    let diverges = |lr: f64| {
        let folder = tempfile::tempdir().unwrap();
        with(lr, OnNonfinite::Stop).train(folder.path()).outcome.is_err()
    };
    (0..220).map(|power| 1.5f64.powi(power)).find(|lr| diverges(*lr)).unwrap()
}

fn assert_finite(folder: &std::path::Path) {
    for path in files(folder).iter().filter(|path| path.extension().is_some_and(|ending| ending == "safetensors")) {
        for (name, tensor) in Weights::read(path).unwrap().tensors {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            assert!(values.iter().all(|value| value.is_finite()), "{name} in {}", path.display());
        }
    }
}

#[test]
fn no_value_that_is_no_number_reaches_a_file() {
    for lr in [1e38, 1e39, 1e45, 1e300] {
        let folder = tempfile::tempdir().unwrap();
        let mut run = with(lr, OnNonfinite::Stop);
        run.config.checkpoint.every_steps = Some(1);
        let error = run.train(folder.path()).outcome.unwrap_err();
        assert!(matches!(error, TrainError::Diverged { .. }), "{lr}: {error}");
        assert_finite(folder.path());
    }
}

#[test]
fn the_dump_has_what_is_needed_to_look_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let error = with(1e39, OnNonfinite::Stop).train(folder.path()).outcome.unwrap_err();
    let TrainError::Diverged { found, dump: Some(dump) } = error else { panic!("{error}") };
    let read: Divergence = serde_json::from_slice(&std::fs::read(&dump).unwrap()).unwrap();
    assert_eq!(read, *found);
    assert_eq!(read.batches[0].indices.len(), 8);
    assert_eq!(read.batches[0].names[0], format!("image-{}", read.batches[0].indices[0]));
    assert_eq!(read.gradient_norms.keys().collect::<Vec<_>>(), ["bias", "weight"]);
    assert!(read.lr > 1e38 && read.step > 0, "{read:?}");
}

#[test]
fn a_rollback_goes_on_with_a_tenth_of_the_rate_and_once() {
    let lr = rate_that_is_just_too_high();
    let whole = tempfile::tempdir().unwrap();
    let ran = with(lr, OnNonfinite::Rollback).train(whole.path());
    assert_eq!(ran.outcome.unwrap(), Outcome::Complete, "at {lr}");
    assert_eq!((ran.progress.num_rollbacks, ran.progress.step), (1, 15));
    assert_finite(whole.path());
    // A stop anywhere, in an evaluation too, before the fall or after it, changes nothing in the end.
    for stop_at in 1..29 {
        let folder = tempfile::tempdir().unwrap();
        let first = Run { stop_at, ..with(lr, OnNonfinite::Rollback) }.train(folder.path());
        assert_eq!(first.outcome.unwrap(), Outcome::Stopped);
        let second = with(lr, OnNonfinite::Rollback).train(folder.path());
        assert_eq!(second.outcome.unwrap(), Outcome::Complete);
        assert_same(whole.path(), folder.path(), &format!("stopped at {stop_at}"));
    }
    let folder = tempfile::tempdir().unwrap();
    let error = with(1e300, OnNonfinite::Rollback).train(folder.path()).outcome.unwrap_err();
    assert!(error.to_string().contains("again, after a rollback"), "{error}");
    assert!(Checkpoint::latest(&folder.path().join("checkpoints")).unwrap().is_some());
}
