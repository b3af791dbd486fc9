//! Archives of CIFAR, read without being unpacked. The input is the tar; the compression around it is made here, so that
//! the fuzzer need not find a checksum.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_data::{open, DataSpec};

mod scratch;

fuzz_target!(|bytes: &[u8]| {
    let path = scratch::file("cifar.tar.gz", &scratch::gzip(bytes));
    if let Ok(data) = open(&DataSpec::new(path.display().to_string())) {
        for index in 0..data.dataset.len().min(4) {
            let _ = data.dataset.get(index);
        }
    }
});
