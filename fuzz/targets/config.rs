//! The configuration of a run: TOML to values, and everything that is checked without the data.
#![no_main]
#![allow(dead_code, reason = "the command's modules are compiled whole")]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/cli/src/config.rs"]
mod config;
#[path = "../../crates/cli/src/device.rs"]
mod device;
#[path = "../../crates/cli/src/exit.rs"]
mod exit;
#[path = "../../crates/cli/src/interrupt.rs"]
mod interrupt;
#[path = "../../crates/cli/src/nearest.rs"]
mod nearest;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = toml::from_str::<config::RunConfig>(text) else { return };
    if config.validate().is_ok() {
        let cost = config.model.cost(100);
        let _ = (cost.num_parameters, config.fit(), config.data_spec(), config.last_batch());
        // What is valid is written as it was read.
        let again: config::RunConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }
});
