//! Whether a test runs: slow ones when asked for, those on real data when it is there.

#![allow(clippy::print_stderr, reason = "a test that passes without running must say so")]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Whether the slow test `name` should run, which is when `RUN_SLOW_TESTS=1` is set.
///
/// If not, the test returns early. The name goes to standard error and to the list that `cargo xtask ci` counts.
#[must_use]
pub fn slow_test(name: &str) -> bool {
    if std::env::var_os("RUN_SLOW_TESTS").is_some_and(|value| value == "1") {
        return true;
    }
    eprintln!("slow test {name} does not run (RUN_SLOW_TESTS=1 runs it)");
    if let Some(list) = std::env::var_os("TAPER_SLOW_TESTS_LIST")
        && let Err(error) = append_line(Path::new(&list), name)
    {
        eprintln!("cannot note it in {}: {error}", Path::new(&list).display());
    }
    false
}

/// One write a line, so that tests running at once do not mix their names.
fn append_line(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{text}\n").as_bytes())
}

/// The folder of real data that `TAPER_TEST_DATA` names: `cifar-100-binary` and `weights` lie in it.
///
/// `None` if the variable is not set; then the test returns early, and standard error says so.
#[must_use]
pub fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("TAPER_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a test");
        eprintln!("{name} is passed over: TAPER_TEST_DATA does not name a folder of real data");
    }
    folder
}

/// The folder of the root manifest.
#[must_use]
pub fn workspace_root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::append_line;

    #[test]
    fn names_are_appended_a_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.txt");
        append_line(&list, "first").unwrap();
        append_line(&list, "second").unwrap();
        assert_eq!(std::fs::read_to_string(&list).unwrap(), "first\nsecond\n");
    }
}
