//! Names on a hub.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{FetchError, Result};

/// The branch that is meant when none is given.
pub const DEFAULT_REVISION: &str = "main";

/// What a path segment keeps as it is (RFC 3986, unreserved characters).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A model repository on a hub at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    name: String,
    revision: String,
}

impl Repository {
    /// Takes `owner/name` or `owner/name@revision`, where the revision is a branch, a tag or a commit.
    ///
    /// # Errors
    /// A name that no repository can have (as `validate_repo_id` of Python's `huggingface_hub`), or a revision that git
    /// does not allow.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let invalid = |reason| Err(FetchError::InvalidName { name: text.to_owned(), reason });
        let Some((owner, model)) = name.split_once('/') else {
            return invalid("a repository is written owner/name or owner/name@revision");
        };
        if ![owner, model].into_iter().all(is_name) {
            return invalid(
                "owner and name have letters, digits and . _ - only, at most 96, none of . - at either end",
            );
        }
        if name.contains("--") || name.contains("..") || name.ends_with(".git") {
            return invalid("a repository's name has no -- and no .. and does not end in .git");
        }
        if !is_revision(revision) {
            return invalid("what stands after the @ is no branch, tag or commit");
        }
        Ok(Self { name: name.to_owned(), revision: revision.to_owned() })
    }

    /// `owner/name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The revision as it was given, else `main`.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Whether the revision is a commit, which never changes.
    pub(crate) fn is_at_commit(&self) -> bool {
        is_commit(&self.revision)
    }

    /// Name of its folder in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.name.replace('/', "--"))
    }

    /// Where a hub has one of its files.
    pub(crate) fn url(&self, endpoint: &str, revision: &str, file: &str) -> String {
        let file: Vec<String> = file.split('/').map(escape).collect();
        format!("{endpoint}/{}/resolve/{}/{}", self.name, escape(revision), file.join("/"))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)
    }
}

/// Refuses a name that would lead out of the repository, or of its folder in the cache.
pub(crate) fn check_file_name(file: &str) -> Result<()> {
    let bad = file.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains(['\\', '\0', ':']));
    if bad {
        let reason = "a file of a repository is named by its path from the top, without . or ..";
        return Err(FetchError::InvalidName { name: file.to_owned(), reason });
    }
    Ok(())
}

pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_name(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=96).contains(&part.len())
        && part.chars().all(allowed)
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
}

/// What git allows (git-check-ref-format), as far as it matters for a path.
fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| !c.is_ascii_control() && !" ~^:?*[\\@".contains(c);
    !revision.is_empty()
        && revision.chars().all(allowed)
        && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
        && !revision.contains("..")
}

fn escape(part: &str) -> String {
    utf8_percent_encode(part, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_read() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let at_commit = format!("o/n@{commit}");
        let cases = [
            ("timm/resnet18.tv_in1k", "timm/resnet18.tv_in1k", "main", "models--timm--resnet18.tv_in1k"),
            ("o/n@refs/pr/3", "o/n", "refs/pr/3", "models--o--n"),
            (&at_commit, "o/n", commit, "models--o--n"),
        ];
        for (text, name, revision, folder) in cases {
            let repository = Repository::parse(text).unwrap();
            let found = (repository.name(), repository.revision(), repository.folder());
            assert_eq!(found, (name, revision, folder.to_owned()));
        }
        assert!(Repository::parse(&at_commit).unwrap().is_at_commit());
        let branch = Repository::parse("o/n@refs/pr/3").unwrap();
        assert_eq!(
            branch.url("http://h", branch.revision(), "a b/c.json"),
            "http://h/o/n/resolve/refs%2Fpr%2F3/a%20b/c.json"
        );
    }

    #[test]
    fn names_that_are_refused() {
        for text in [
            "", "name", "/n", "o/", "a/b/c", "../etc", "o/..", "o/.n", "o/n-", "o/a--b", "o/n.git", "o/n@", "o/n@a..b",
            "o/n@../x", "o/n@a b", "o/n@/x", "o/n@x\0", "o/é",
        ] {
            assert!(matches!(Repository::parse(text), Err(FetchError::InvalidName { .. })), "{text:?}");
        }
        for file in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a\\b", "."] {
            assert!(check_file_name(file).is_err(), "{file:?}");
        }
        check_file_name("onnx/model.onnx").unwrap();
    }
}
