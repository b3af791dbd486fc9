//! Python programs that chores run: virtual environments with pinned packages, and calls.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::target_folder;

/// The Python of a virtual environment `name` under the target folder that has the packages of the file
/// `requirements`, a path from the root. It is made unless one with the same pinned packages is there already.
///
/// # Errors
/// No Python 3, no network, or a package that cannot be installed.
pub(crate) fn environment(root: &Path, name: &str, requirements: &str) -> Result<PathBuf> {
    let pinned =
        std::fs::read_to_string(root.join(requirements)).with_context(|| format!("cannot read {requirements}"))?;
    let folder = target_folder(root).join(name);
    let python = folder.join("bin").join("python");
    // Written last, so that an interrupted installation is not taken for a whole one.
    let installed = folder.join("installed-requirements.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == pinned) {
        return Ok(python);
    }
    println!("== virtual environment with {requirements} (minutes, about 5 GB)");
    call(root, Path::new("python3"), [OsStr::new("-m"), OsStr::new("venv"), folder.as_os_str()])?;
    call(root, &python, ["-m", "pip", "install", "-r", requirements])?;
    std::fs::write(&installed, &pinned).with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(python)
}

/// Runs a program in the root and waits for its end.
///
/// # Errors
/// It cannot be started, or it fails.
pub(crate) fn call<S: AsRef<OsStr>>(root: &Path, program: &Path, arguments: impl IntoIterator<Item = S>) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root);
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
