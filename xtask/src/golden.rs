//! `cargo xtask golden`: runs the scripts that write what PyTorch computes into `data/golden`.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::python;

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
        None => python::environment(root, "golden-venv", &format!("{SCRIPTS}/requirements.txt"))?,
    };
    std::fs::create_dir_all(root.join(OUTPUT)).with_context(|| format!("cannot make {OUTPUT}"))?;
    for name in scripts {
        let script = format!("{SCRIPTS}/{name}.py");
        println!("== {script}");
        python::call(root, &python, [&script, OUTPUT])?;
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
