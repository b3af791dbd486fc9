//! `cargo xtask golden`: runs the scripts that write what PyTorch computes into `data/golden`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::target_folder;

/// Folder of the scripts, from the root.
pub(crate) const SCRIPTS: &str = "xtask/golden";
/// Folder the scripts write into, from the root; each gets it as its only argument.
pub(crate) const OUTPUT: &str = "data/golden";

/// Runs the named scripts, or all of them when none is named, with `python` or with a virtual
/// environment of the pinned packages.
///
/// # Errors
/// An unknown script, a Python that cannot be prepared, or a script that fails.
pub(crate) fn run(root: &Path, python: Option<&Path>, names: &[String]) -> Result<()> {
    let scripts = select(&find_scripts(root)?, names)?;
    let python = match python {
        Some(path) => path.to_owned(),
        None => prepare_environment(root)?,
    };
    std::fs::create_dir_all(root.join(OUTPUT)).with_context(|| format!("cannot make {OUTPUT}"))?;
    for name in scripts {
        let script = format!("{SCRIPTS}/{name}.py");
        println!("== {script}");
        call(root, &python, [&script, OUTPUT])?;
    }
    Ok(())
}

/// Names without `.py` of the scripts, in order; a leading underscore marks a module they share.
fn find_scripts(root: &Path) -> Result<Vec<String>> {
    let folder = root.join(SCRIPTS);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {SCRIPTS}"))? {
        let path = entry?.path();
        if let (Some(stem), Some("py")) =
            (path.file_stem().and_then(OsStr::to_str), path.extension().and_then(OsStr::to_str))
            && !stem.starts_with('_')
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn select(known: &[String], names: &[String]) -> Result<Vec<String>> {
    for name in names {
        if !known.contains(name) {
            bail!("there is no script {SCRIPTS}/{name}.py; choose from: {}", known.join(", "));
        }
    }
    Ok(if names.is_empty() { known } else { names }.to_vec())
}

/// Makes the virtual environment, unless one with the same pinned packages is there already.
fn prepare_environment(root: &Path) -> Result<PathBuf> {
    let pinned = std::fs::read_to_string(root.join(SCRIPTS).join("requirements.txt"))
        .with_context(|| format!("cannot read {SCRIPTS}/requirements.txt"))?;
    let folder = target_folder(root).join("golden-venv");
    let python = folder.join("bin").join("python");
    // Written last, so that an interrupted installation is not taken for a whole one.
    let installed = folder.join("installed-requirements.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == pinned) {
        return Ok(python);
    }
    println!("== virtual environment with {SCRIPTS}/requirements.txt (minutes, about 5 GB)");
    call(root, Path::new("python3"), [OsStr::new("-m"), OsStr::new("venv"), folder.as_os_str()])?;
    let requirements = format!("{SCRIPTS}/requirements.txt");
    call(root, &python, ["-m", "pip", "install", "-r", &requirements])?;
    std::fs::write(&installed, &pinned).with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(python)
}

fn call<S: AsRef<OsStr>>(root: &Path, program: &Path, arguments: impl IntoIterator<Item = S>) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root);
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{SCRIPTS, find_scripts, run, select};

    fn root_with(scripts: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join(SCRIPTS)).unwrap();
        for (name, text) in scripts {
            std::fs::write(root.path().join(SCRIPTS).join(name), text).unwrap();
        }
        root
    }

    #[test]
    fn scripts_are_the_python_files_without_underscore() {
        let root = root_with(&[("b.py", ""), ("a.py", ""), ("_c.py", ""), ("d.txt", "")]);
        assert_eq!(find_scripts(root.path()).unwrap(), ["a", "b"]);
    }

    #[test]
    fn an_unknown_script_is_answered_with_the_known_ones() {
        let known = ["kernels".to_owned()];
        let error = select(&known, &["kernel".to_owned()]).unwrap_err();
        assert!(error.to_string().ends_with("choose from: kernels"));
        assert_eq!(select(&known, &[]).unwrap(), known);
    }

    #[test]
    fn a_script_gets_the_output_folder_and_its_failure_is_ours() {
        let writes = "open(__import__('sys').argv[1] + '/made.txt', 'w')\n";
        let root = root_with(&[("a.py", writes), ("b.py", "raise SystemExit(3)\n")]);
        let python = Some(std::path::Path::new("python3"));
        run(root.path(), python, &["a".to_owned()]).unwrap();
        assert!(root.path().join("data/golden/made.txt").exists());
        assert!(run(root.path(), python, &["b".to_owned()]).is_err());
    }
}
