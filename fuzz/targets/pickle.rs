//! Pickles alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_data::pickle::{Limits, Pickle};

fuzz_target!(|bytes: &[u8]| {
    let limits =
        Limits { max_values: 1 << 16, may_name: |module, name| module == b"collections" && name == b"OrderedDict" };
    if let Ok(pickle) = Pickle::parse(bytes, limits) {
        let _ = pickle.value(pickle.root());
        assert!(pickle.values().len() <= 1 << 16);
    }
});
