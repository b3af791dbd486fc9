//! The binaries `taper` and `xtask`, built once a process and run within a limit.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::workspace_root;

/// Environment that would make a test depend on who runs it.
const UNSET: [&str; 10] = [
    "TAPER_LOG",
    "RAYON_NUM_THREADS",
    "NO_COLOR",
    "CLICOLOR_FORCE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
];

/// What a run of the binary left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error; bytes that are not UTF-8 are replaced.
    pub stderr: String,
}

impl Outcome {
    /// Gives itself back if the process ended with this code.
    ///
    /// # Panics
    /// With both outputs, if it ended otherwise: for use in tests.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert!(
            self.code == Some(code),
            "expected exit code {code}, got {:?}\n-- stdout\n{}\n-- stderr\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A command that runs `taper` of the same profile as this test, built now if it is not built yet.
///
/// Colours, logging and threads are at their defaults, whatever the environment of the tests says.
///
/// # Errors
/// The binary cannot be built; cargo's own words are on standard error.
pub fn taper() -> io::Result<Command> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    command(&BINARY, "taper-cli", "taper")
}

/// As [`taper`], for the workspace's chores.
///
/// # Errors
/// As [`taper`].
pub fn xtask() -> io::Result<Command> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    command(&BINARY, "xtask", "xtask")
}

fn command(binary: &OnceLock<Result<PathBuf, String>>, package: &str, name: &str) -> io::Result<Command> {
    let built = binary.get_or_init(|| build(package, name).map_err(|error| error.to_string()));
    let mut command = Command::new(built.as_ref().map_err(|error| io::Error::other(error.clone()))?);
    for name in UNSET {
        command.env_remove(name);
    }
    Ok(command)
}

fn build(package: &str, name: &str) -> io::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // A test lies in <profile>/deps.
    let profile = test.ancestors().nth(2).map_or("dev", profile);
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--package", package, "--bin", name, "--profile", profile]);
    // Cargo says where the binary is: the target folder may be anywhere, and what lies in it is cargo's own business.
    command.args(["--message-format", "json-render-diagnostics"]).current_dir(workspace_root());
    // What cargo says of this package is not so of others: build scripts that look at it would run again each time, and
    // with them half of the binary would be built anew.
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
        command.env_remove(name);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    match executable(&String::from_utf8_lossy(&output.stdout)) {
        Some(binary) if output.status.success() => Ok(binary),
        _ => Err(io::Error::other(format!("{command:?} ended with {} and named no executable", output.status))),
    }
}

/// The executable that cargo's messages name last, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    let parsed = messages.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut named = parsed.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    named.next()
}

/// The profile whose folder this is: cargo names the folder of `dev` otherwise.
fn profile(folder: &Path) -> &str {
    match folder.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(name) => name,
    }
}

/// Runs a command to its end, at most ten minutes.
///
/// # Errors
/// As [`run_within`].
pub fn run(command: &mut Command) -> io::Result<Outcome> {
    run_within(command, Duration::from_secs(600))
}

/// Runs a command to its end, with nothing on its standard input.
///
/// # Errors
/// It cannot be started, or it has not ended within the limit; then it is killed.
pub fn run_within(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stdout = read_aside(child.stdout.take());
    let stderr = read_aside(child.stderr.take());
    let code = wait_within(&mut child, limit)
        .map_err(|error| io::Error::new(error.kind(), format!("{command:?}: {error}")))?;
    Ok(Outcome { code, stdout: collect(stdout)?, stderr: collect(stderr)? })
}

/// Reads on a thread of its own, so that a full pipe cannot stop the process.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn collect(reader: JoinHandle<io::Result<Vec<u8>>>) -> io::Result<String> {
    let bytes = reader.join().map_err(|_| io::Error::other("the thread that reads output panicked"))??;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn wait_within(child: &mut Child, limit: Duration) -> io::Result<Option<i32>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("did not end within {limit:?}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// An empty folder that is removed when the value is dropped.
///
/// # Errors
/// The folder cannot be made.
pub fn temp_folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("taper-test-").tempdir()
}

#[cfg(test)]
mod tests {
    use super::{executable, profile, run, run_within};
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn an_outcome_has_code_and_both_outputs() {
        let outcome = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 7"])).unwrap();
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
        outcome.expect_code(7);
    }

    #[test]
    #[should_panic(expected = "expected exit code 0, got Some(7)")]
    fn another_code_fails_the_test() {
        run(Command::new("sh").args(["-c", "exit 7"])).unwrap().expect_code(0);
    }

    #[test]
    fn a_command_that_does_not_end_is_killed() {
        let error = run_within(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }

    #[test]
    fn output_larger_than_a_pipe_is_read_whole() {
        let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done";
        let outcome = run(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(outcome.stdout.len(), 20_000 * 11);
    }

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","executable":"/some where/taper"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/some where/taper")));
        assert_eq!(executable("{}\n"), None);
    }

    #[test]
    fn folders_name_profiles() {
        assert_eq!(profile(Path::new("target/debug")), "dev");
        assert_eq!(profile(Path::new("target/release")), "release");
    }
}
