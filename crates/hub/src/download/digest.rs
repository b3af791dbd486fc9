//! What a file should be, and whether it is.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use super::error::{FetchError, Result};

/// A sum in lower-case hexadecimal that a publisher or server gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sum {
    /// SHA-256 of the bytes: the ETag of a file in large-file storage.
    Sha256(String),
    /// SHA-1 of git's blob header and the bytes: the ETag of a file in git itself.
    GitBlob(String),
    /// MD5 of the bytes, which old archives are published with.
    Md5(String),
}

/// What a file was held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// A SHA-256.
    Sha256,
    /// The SHA-1 of a git blob.
    GitBlob,
    /// An MD5.
    Md5,
    /// The size alone: the server gave an ETag of no known form.
    Size,
    /// Nothing: it lay in the cache under a name that is no sum.
    Nothing,
}

/// What a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summed {
    pub(crate) size: u64,
    /// In hexadecimal.
    pub(crate) sha256: String,
}

impl Sum {
    /// What an ETag says of the bytes, if it is of a form that hubs use.
    #[must_use]
    pub fn of_etag(etag: &str) -> Option<Self> {
        let is_hex = etag.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match etag.len() {
            64 if is_hex => Some(Self::Sha256(etag.to_owned())),
            40 if is_hex => Some(Self::GitBlob(etag.to_owned())),
            _ => None,
        }
    }

    pub(crate) fn verified(&self) -> Verified {
        match self {
            Self::Sha256(_) => Verified::Sha256,
            Self::GitBlob(_) => Verified::GitBlob,
            Self::Md5(_) => Verified::Md5,
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitBlob(_) => "SHA-1 of its git blob",
            Self::Md5(_) => "MD5",
        }
    }

    fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) | Self::Md5(hex) => hex,
        }
    }
}

/// The sums that are computed in one pass; SHA-256 always, for the record.
struct Hashers {
    sha256: Sha256,
    git_blob: Option<Sha1>,
    md5: Option<Md5>,
}

impl Hashers {
    fn new(expected: &[Sum], size: u64) -> Self {
        let git_blob = expected.iter().any(|sum| matches!(sum, Sum::GitBlob(_)));
        let md5 = expected.iter().any(|sum| matches!(sum, Sum::Md5(_)));
        Self {
            sha256: Sha256::new(),
            git_blob: git_blob.then(|| Sha1::new_with_prefix(format!("blob {size}\0"))),
            md5: md5.then(Md5::new),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git_blob) = &mut self.git_blob {
            git_blob.update(bytes);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    /// The sum of the same kind.
    fn like(&self, sum: &Sum) -> String {
        match sum {
            Sum::Sha256(_) => hex(&self.sha256.clone().finalize()),
            Sum::GitBlob(_) => self.git_blob.clone().map_or_else(String::new, |sha1| hex(&sha1.finalize())),
            Sum::Md5(_) => self.md5.clone().map_or_else(String::new, |md5| hex(&md5.finalize())),
        }
    }
}

/// Reads a file from the disk and holds it against all sums: what is checked is what was written, not what was received.
///
/// # Errors
/// The first sum that differs, under `name`; or a file that cannot be read.
pub(crate) fn verify(path: &Path, name: &str, expected: &[Sum]) -> Result<Summed> {
    let read = |error| FetchError::io("read", path, error);
    let mut file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut hashers = Hashers::new(expected, size);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = file.read(&mut buffer).map_err(read)?;
        if len == 0 {
            break;
        }
        hashers.update(&buffer[..len]);
    }
    for sum in expected {
        let found = hashers.like(sum);
        if found != sum.hex() {
            let (algorithm, expected) = (sum.algorithm(), sum.hex().to_owned());
            return Err(FetchError::Digest { name: name.to_owned(), algorithm, expected, found });
        }
    }
    Ok(Summed { size, sha256: hex(&hashers.sha256.finalize()) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_known_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-2 and RFC 1321 give the first and the last; `printf abc | git hash-object --stdin` the other.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let known = [
            Sum::Sha256(sha256.to_owned()),
            Sum::GitBlob("f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f".to_owned()),
            Sum::Md5("900150983cd24fb0d6963f7d28e17f72".to_owned()),
        ];
        assert_eq!(verify(&path, "abc", &known).unwrap(), Summed { size: 3, sha256: sha256.to_owned() });
        for wrong in [Sum::Sha256("0".repeat(64)), Sum::GitBlob("0".repeat(40)), Sum::Md5("0".repeat(32))] {
            let error = verify(&path, "abc", std::slice::from_ref(&wrong)).unwrap_err();
            assert!(matches!(error, FetchError::Digest { algorithm, .. } if algorithm == wrong.algorithm()));
        }
    }

    #[test]
    fn forms_of_etags() {
        assert_eq!(Sum::of_etag(&"a".repeat(64)), Some(Sum::Sha256("a".repeat(64))));
        assert_eq!(Sum::of_etag(&"0".repeat(40)), Some(Sum::GitBlob("0".repeat(40))));
        for other in ["a".repeat(32), "A".repeat(64), "g".repeat(40), "abc-12".to_owned()] {
            assert_eq!(Sum::of_etag(&other), None, "{other}");
        }
    }
}
