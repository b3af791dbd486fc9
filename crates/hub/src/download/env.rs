//! Settings of a download, and how the environment sets them.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{FetchError, Result};

/// The hub that is asked when `HF_ENDPOINT` names no other.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where files come from and go to.
///
/// The names and defaults are those of Python's `huggingface_hub` (its guide "Environment variables"), so that both find
/// each other's files.
#[derive(Clone, Debug)]
pub struct HubEnv {
    /// Folder of the cache: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// The hub, without a slash at its end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// What is shown to the hub, and to nobody else: `HF_TOKEN`, else what the file `HF_TOKEN_PATH` holds.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`.
    pub network: Network,
    /// How long is waited, and how often tried.
    pub patience: Patience,
}

/// Whether the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It may.
    Online,
    /// Only what is in the cache is found.
    Offline,
}

/// A secret that identifies the user to the hub. Debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token as it stands in an HTTP header.
    ///
    /// # Errors
    /// It has characters that no header can carry; `variable` names the one it came from.
    pub fn new(text: &str, variable: &'static str) -> Result<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let reason = "a token is one word of ASCII letters, digits and signs".to_owned();
            return Err(FetchError::InvalidVariable { variable, reason });
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// How long is waited, and how often tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until the next bytes come.
    pub read: Duration,
    /// Tries in a row that brought no new byte.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause; a server that asks for a longer one ends the download.
    pub longest_pause: Duration,
}

impl Default for Patience {
    /// Ten seconds as in Python's `huggingface_hub` (`DEFAULT_REQUEST_TIMEOUT`), thirty for a server that reads the
    /// file from a slow store; five attempts, as there.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(30),
            attempts: 5,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(120),
        }
    }
}

impl HubEnv {
    /// Reads the settings from variables; `variable` gives the value of one.
    ///
    /// An empty value is as good as none. `~` and `$NAME` in paths are replaced, as in Python.
    ///
    /// # Errors
    /// A value that cannot be used, a token file that exists and cannot be read, or no home folder to be found.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let variables = Variables(&variable);
        let home = match variables.path("HF_HOME")? {
            Some(home) => home,
            None => variables.default_home()?,
        };
        let cache = variables.path("HF_HUB_CACHE")?.unwrap_or_else(|| home.join("hub"));
        let endpoint = match variables.text("HF_ENDPOINT")? {
            Some(endpoint) => check_endpoint(&endpoint)?,
            None => DEFAULT_ENDPOINT.to_owned(),
        };
        let token = match variables.text("HF_TOKEN")? {
            Some(token) => Some(Token::new(token.trim(), "HF_TOKEN")?),
            None => token_of_file(&variables.path("HF_TOKEN_PATH")?.unwrap_or_else(|| home.join("token")))?,
        };
        let offline = variables.text("HF_HUB_OFFLINE")?.is_some_and(|value| is_true(&value));
        let network = if offline { Network::Offline } else { Network::Online };
        Ok(Self { cache, endpoint, token, network, patience: Patience::default() })
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>> {
        let text = self.get(name).map(OsString::into_string).transpose();
        text.map_err(|_| FetchError::InvalidVariable { variable: name, reason: "it is not UTF-8".to_owned() })
    }

    fn path(&self, name: &'static str) -> Result<Option<PathBuf>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        // A path that is not UTF-8 is taken as it stands.
        value.to_str().map_or_else(|| Ok(Some(PathBuf::from(&value))), |text| self.expand(text).map(Some))
    }

    fn default_home(&self) -> Result<PathBuf> {
        let cache = match self.path("XDG_CACHE_HOME")? {
            Some(cache) => cache,
            None => self.home()?.join(".cache"),
        };
        Ok(cache.join("huggingface"))
    }

    fn home(&self) -> Result<PathBuf> {
        self.get("HOME").map(PathBuf::from).ok_or(FetchError::InvalidVariable {
            variable: "HOME",
            reason: "it is not set, and the cache lies below it; set HF_HOME".to_owned(),
        })
    }

    /// Replaces `$NAME` and `${NAME}` where the variable is set, then a `~` at the start.
    fn expand(&self, text: &str) -> Result<PathBuf> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            let (name, len) = variable_name(&rest[at..]);
            match self.get(name).and_then(|value| value.into_string().ok()) {
                Some(value) if !name.is_empty() => expanded.push_str(&value),
                _ => expanded.push_str(&rest[at..at + len]),
            }
            rest = &rest[at + len..];
        }
        expanded.push_str(rest);
        match expanded.strip_prefix('~') {
            Some("") => self.home(),
            Some(below) if below.starts_with('/') => Ok(self.home()?.join(below.trim_start_matches('/'))),
            _ => Ok(PathBuf::from(expanded)),
        }
    }
}

/// The name after a `$` at the start of `text`, and the length of both with the braces.
fn variable_name(text: &str) -> (&str, usize) {
    let after = &text[1..];
    if let Some((name, _)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return (name, name.len() + 3);
    }
    let len = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
    (&after[..len], len + 1)
}

fn check_endpoint(endpoint: &str) -> Result<String> {
    let endpoint = endpoint.trim_end_matches('/');
    let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || host.contains(['@', '?', '#', ' '])) {
        let reason = format!("{endpoint:?} is not of the form https://host");
        return Err(FetchError::InvalidVariable { variable: "HF_ENDPOINT", reason });
    }
    Ok(endpoint.to_owned())
}

fn token_of_file(path: &Path) -> Result<Option<Token>> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Token::new(text.trim(), "HF_TOKEN_PATH").map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FetchError::io("read the token in", path, error)),
    }
}

/// As Python's `huggingface_hub` has it (`ENV_VARS_TRUE_VALUES`).
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(variables: &[(&str, &str)]) -> Result<HubEnv> {
        HubEnv::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn cache_folders() {
        let home = ("HOME", "/home/ann");
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[home], "/home/ann/.cache/huggingface/hub"),
            (&[home, ("XDG_CACHE_HOME", "/c")], "/c/huggingface/hub"),
            (&[("HF_HOME", "/big/hf")], "/big/hf/hub"),
            (&[home, ("HF_HOME", "")], "/home/ann/.cache/huggingface/hub"),
            (&[home, ("HF_HOME", "~/hf")], "/home/ann/hf/hub"),
            (&[home, ("HF_HOME", "$HOME/a${HOME}b$NONE")], "/home/ann/a/home/annb$NONE/hub"),
            (&[home, ("HF_HOME", "/x"), ("HF_HUB_CACHE", "/y")], "/y"),
            (&[("HF_HOME", "/x"), ("HF_HUB_CACHE", "$")], "$"),
        ];
        for (variables, expected) in cases {
            assert_eq!(env(variables).unwrap().cache, Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn network_and_endpoint() {
        for (value, expected) in [
            ("1", Network::Offline),
            ("true", Network::Offline),
            ("on", Network::Offline),
            ("0", Network::Online),
            ("", Network::Online),
        ] {
            assert_eq!(env(&[("HF_HOME", "/x"), ("HF_HUB_OFFLINE", value)]).unwrap().network, expected, "{value}");
        }
        for (value, expected) in [
            ("http://127.0.0.1:80/", "http://127.0.0.1:80"),
            ("", DEFAULT_ENDPOINT),
            ("https://m/hub", "https://m/hub"),
        ] {
            assert_eq!(env(&[("HF_HOME", "/x"), ("HF_ENDPOINT", value)]).unwrap().endpoint, expected);
        }
    }

    #[test]
    fn tokens() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| env(variables).unwrap().token.map(|token| token.header());
        assert_eq!(token(&[("HF_HOME", home)]), None);
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(folder.path().join("other"), "hf_other").unwrap();
        let other = format!("{home}/other");
        assert_eq!(token(&[("HF_HOME", home)]).unwrap(), "Bearer hf_file");
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN_PATH", &other)]).unwrap(), "Bearer hf_other");
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "hf_env")]).unwrap(), "Bearer hf_env");
        let shown = format!("{:?}", env(&[("HF_HOME", home), ("HF_TOKEN", "hf_env")]).unwrap());
        assert!(!shown.contains("hf_env"), "{shown}");
    }

    #[test]
    fn mistakes_name_the_variable() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[], "HOME"),
            (&[("HF_HOME", "~/x")], "HOME"),
            (&[("HF_HOME", "/x"), ("HF_ENDPOINT", "huggingface.co")], "HF_ENDPOINT"),
            (&[("HF_HOME", "/x"), ("HF_ENDPOINT", "https://user@host")], "HF_ENDPOINT"),
            (&[("HF_HOME", "/x"), ("HF_TOKEN", "two\nlines")], "HF_TOKEN"),
        ];
        for (variables, expected) in cases {
            match env(variables) {
                Err(FetchError::InvalidVariable { variable, .. }) => assert_eq!(variable, expected),
                other => panic!("{variables:?}: {other:?}"),
            }
        }
    }
}
