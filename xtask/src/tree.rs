//! The files of the repository in memory, so that rules are functions from text to findings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use ignore::WalkBuilder;

/// The files that git does not ignore, by path from the root with `/` between the parts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, Vec<u8>>,
    folders: BTreeSet<String>,
}

impl Tree {
    /// Reads every file under `root` that `.gitignore` does not name.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let walk = WalkBuilder::new(root)
            .hidden(false)
            .git_global(false)
            .git_exclude(false)
            .parents(false)
            .require_git(false)
            .filter_entry(|entry| entry.file_name() != ".git")
            .build();
        for entry in walk {
            let entry = entry.context("cannot walk through the repository")?;
            if entry.path().is_file() {
                let bytes =
                    std::fs::read(entry.path()).with_context(|| format!("cannot read {}", entry.path().display()))?;
                tree.insert(&from_root(root, entry.path())?, bytes);
            }
        }
        Ok(tree)
    }

    /// Adds a file and the folders above it.
    pub(crate) fn insert(&mut self, path: &str, bytes: Vec<u8>) {
        for (end, _) in path.match_indices('/') {
            self.folders.insert(path[..end].to_owned());
        }
        self.files.insert(path.to_owned(), bytes);
    }

    /// Paths and bytes of all files, by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// Paths and text of the files with this extension; files that are not UTF-8 are passed over.
    pub(crate) fn texts(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter_map(move |(path, bytes)| {
            let (_, found) = path.rsplit_once('.')?;
            (found == extension).then_some((path, std::str::from_utf8(bytes).ok()?))
        })
    }

    /// The text of one file, if it is there and UTF-8.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.files.get(path)?).ok()
    }

    /// Whether a file or folder has this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path) || self.folders.contains(path)
    }

    /// Whether there is a folder of this path.
    pub(crate) fn has_folder(&self, path: &str) -> bool {
        self.folders.contains(path)
    }

    /// Whether any file's path ends in `/suffix`.
    pub(crate) fn has_file_ending(&self, suffix: &str) -> bool {
        self.files.keys().any(|path| path.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('/')))
    }

    /// All files and folders.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().chain(&self.folders).map(String::as_str)
    }
}

#[cfg(test)]
impl Tree {
    /// A tree of text files, for the tests of rules.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.insert(path, text.as_bytes().to_vec());
        }
        tree
    }
}

fn from_root(root: &Path, path: &Path) -> Result<String> {
    let inside = path.strip_prefix(root)?;
    let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::Tree;

    #[test]
    fn reading_leaves_out_what_git_ignores() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(".gitignore", "target/\n");
        write("target/out.rs", "");
        write(".git/config", "");
        write(".ci/run", "");
        write("crates/data/src/lib.rs", "");
        let tree = Tree::read(folder.path()).unwrap();
        let files: Vec<_> = tree.files().map(|(path, _)| path).collect();
        assert_eq!(files, [".ci/run", ".gitignore", "crates/data/src/lib.rs"]);
        assert!(tree.has_folder("crates/data") && !tree.has_folder("target"));
    }

    #[test]
    fn a_suffix_ends_at_a_folder_boundary() {
        let tree = Tree::of(&[("crates/data/src/lib.rs", "")]);
        assert!(tree.has_file_ending("src/lib.rs"));
        assert!(!tree.has_file_ending("rc/lib.rs"));
    }
}
