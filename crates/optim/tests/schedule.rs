//! Schedules against PyTorch's, and at their ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde::Deserialize;
use taper_optim::{Schedule, ScheduleConfig};

#[derive(Deserialize)]
struct Golden {
    num_steps: u64,
    steps_per_epoch: u64,
    lr: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    schedule: ScheduleConfig,
    rates: Vec<f64>,
}

#[test]
fn rates_equal_pytorchs() {
    let golden: Golden = serde_json::from_str(include_str!("../../../data/golden/optim/schedules.json")).unwrap();
    for case in golden.cases {
        let schedule = Schedule::new(case.schedule, golden.lr, golden.num_steps, golden.steps_per_epoch).unwrap();
        for (step, expected) in case.rates.iter().enumerate() {
            let found = schedule.lr(step as u64);
            // PyTorch computes the cosine recursively; both are f64.
            assert!((found - expected).abs() < 1e-12, "{schedule:?} at step {step}: {found} instead of {expected}");
        }
    }
}

#[test]
fn warmup_rises_linearly_to_the_peak() {
    for config in [
        ScheduleConfig::Constant { warmup: 0.1 },
        ScheduleConfig::Cosine { warmup: 0.1, final_fraction: 0.0 },
        ScheduleConfig::Step { warmup: 0.1, every_epochs: 50, gamma: 0.1 },
    ] {
        let schedule = Schedule::new(config, 1.0, 100, 2).unwrap();
        let rates: Vec<f64> = (0..11).map(|step| schedule.lr(step)).collect();
        for (step, rate) in rates.iter().enumerate().take(10) {
            assert!((rate - (step + 1) as f64 / 10.0).abs() < 1e-15, "{rates:?}");
        }
        assert_eq!(rates[10], 1.0);
    }
}

#[test]
fn steps_behind_the_end_keep_the_last_rate() {
    for name in ScheduleConfig::NAMES {
        let schedule = Schedule::new(ScheduleConfig::by_name(name).unwrap(), 0.3, 7, 3).unwrap();
        assert_eq!(schedule.lr(6), schedule.lr(1000), "{name}");
        assert!((0..7).all(|step| schedule.lr(step).is_finite() && schedule.lr(step) >= 0.0), "{name}");
    }
    assert!(ScheduleConfig::by_name("polynomial").is_none());
}

#[test]
fn one_step_runs_have_a_rate() {
    for name in ScheduleConfig::NAMES {
        let schedule = Schedule::new(ScheduleConfig::by_name(name).unwrap(), 0.3, 1, 1).unwrap();
        assert!(schedule.lr(0).is_finite(), "{name}");
    }
}

#[test]
fn values_that_cannot_be_are_named() {
    let cases = [
        (ScheduleConfig::Constant { warmup: 1.0 }, "schedule.warmup = 1"),
        (ScheduleConfig::Step { warmup: 0.0, every_epochs: 0, gamma: 0.1 }, "schedule.every_epochs = 0"),
        (ScheduleConfig::Cosine { warmup: 0.0, final_fraction: -1.0 }, "schedule.final_fraction = -1"),
        (ScheduleConfig::OneCycle { peak: 2.0, initial_divisor: 25.0, final_divisor: 1e4 }, "schedule.peak = 2"),
    ];
    for (config, expected) in cases {
        let text = Schedule::new(config, 0.1, 10, 1).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}
