//! Archives that are unpacked to disk: nothing may be written outside of the folder.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod scratch;

fuzz_target!(|bytes: &[u8]| {
    let archive = scratch::file("some.tar.gz", &scratch::tar_gz(bytes));
    let around = archive.with_file_name("around");
    let folder = around.join("folder");
    let _ = std::fs::remove_dir_all(&around);
    std::fs::create_dir_all(&folder).unwrap();
    let _ = taper_hub::archives::unpack(&archive, &folder, 1 << 20, 100);
    let names: Vec<_> = std::fs::read_dir(&around).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["folder"], "something was written beside the folder");
});
