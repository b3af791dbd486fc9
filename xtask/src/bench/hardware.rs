//! What the figures were measured on: processor, compiler, commit, date, and who else was busy.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

/// Vector and matrix extensions that kernels here or in a peer make use of, as Linux names them.
const EXTENSIONS: [&str; 12] = [
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_bf16",
    "avx512_fp16",
    "avx512_vnni",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
];

/// Processor, cores and memory, as far as the system tells.
pub(crate) fn describe() -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cores = std::thread::available_parallelism().ok();
    json!({
        "cpu": field(&cpu, "model name"),
        "cores": cores,
        "extensions": extensions(&cpu),
        "memory": field(&memory, "MemTotal"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
    })
}

/// The first `key : value` of a file of `/proc`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.trim(), value.trim())).find_map(|(name, value)| (name == key).then_some(value))
}

fn extensions(cpu: &str) -> Vec<&'static str> {
    let flags = field(cpu, "flags").or_else(|| field(cpu, "Features")).unwrap_or_default();
    let has = |name: &&str| flags.split_whitespace().any(|flag| flag == *name);
    EXTENSIONS.into_iter().filter(has).collect()
}

/// How many cores others keep busy, watched for a second; `None` where the system does not tell.
pub(super) fn busy_cores() -> Option<f64> {
    let read = || processor_time(&std::fs::read_to_string("/proc/stat").ok()?);
    let cores = std::thread::available_parallelism().ok()?.get() as f64;
    let (idle_before, all_before) = read()?;
    std::thread::sleep(Duration::from_secs(1));
    let (idle, all) = read()?;
    let (idle, all) = (idle - idle_before, all - all_before);
    (all > 0.0).then(|| cores * (all - idle) / all)
}

/// Idle and all time of all cores since the start, from the first line of `/proc/stat`. Waiting for a disk is idle; what
/// a hypervisor took away is not.
fn processor_time(stat: &str) -> Option<(f64, f64)> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of user and nice.
    let times: Vec<f64> = times.take(8).map_while(|time| time.parse().ok()).collect();
    let [_, _, _, idle, iowait, ..] = *times else { return None };
    Some((idle + iowait, times.iter().sum()))
}

/// The commit, marked where files differ from it; `None` outside of a repository.
pub(crate) fn commit(root: &Path) -> Option<String> {
    let commit = said(root, "git", &["rev-parse", "HEAD"])?;
    let changes = said(root, "git", &["status", "--porcelain"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit} with changes") })
}

/// The compiler's version.
pub(crate) fn rustc(root: &Path) -> Option<String> {
    said(root, "rustc", &["--version"])
}

/// Now, in UTC.
pub(crate) fn date(root: &Path) -> Option<String> {
    said(root, "date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])
}

fn said(root: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(root).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{extensions, field, processor_time};

    const CPUINFO: &str = "processor\t: 0\nmodel name\t: A CPU: fast\nflags\t\t: fpu avx2 avx512f\n\nprocessor\t: 1\n";

    #[test]
    fn fields_are_read_whole() {
        assert_eq!(field(CPUINFO, "model name"), Some("A CPU: fast"));
        assert_eq!(field(CPUINFO, "model"), None);
    }

    #[test]
    fn extensions_are_whole_words() {
        assert_eq!(extensions(CPUINFO), ["avx2", "avx512f"]);
        assert_eq!(extensions("Features : fp asimd\n"), ["asimd"]);
    }

    #[test]
    fn guests_are_not_counted_twice() {
        let stat = "cpu  10 1 2 80 4 1 1 1 7 1\ncpu0 5 1 1 40 2 0 1 1 3 1\n";
        assert_eq!(processor_time(stat), Some((84.0, 100.0)));
        assert_eq!(processor_time("intr 1\n"), None);
    }
}
