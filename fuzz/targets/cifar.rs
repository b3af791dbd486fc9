//! Archives of CIFAR, read without being unpacked. The input is the tar; its checksums and the compression around it are
//! made here, so that the fuzzer need not find them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_data::{DataSpec, open};

mod scratch;

fuzz_target!(|bytes: &[u8]| {
    let path = scratch::file("cifar.tar.gz", &scratch::tar_gz(bytes));
    if let Ok(data) = open(&DataSpec::new(path.display().to_string())) {
        for index in 0..data.dataset.len().min(4) {
            let _ = data.dataset.get(index);
        }
    }
});
