//! `taper fetch` against a hub on loopback, as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the tests of the crate hub use more of it")]
#[path = "../crates/hub/tests/network/loopback.rs"]
mod loopback;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use loopback::{COMMIT, Fault, Leg, Loopback, sha256, status};
use taper_tests::{Outcome, run, taper, temp_folder};

const REPOSITORY: &str = "timm/resnet18.tv_in1k";

fn weights() -> Vec<u8> {
    (0..400_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A hub that has the weights which `resnet18` means, and a home of its own.
struct Setting {
    server: Loopback,
    home: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let server = Loopback::start();
        server.add_large(&format!("{REPOSITORY}/model.safetensors"), &weights());
        server.add_small(&format!("{REPOSITORY}/config.json"), b"{}");
        Self { server, home: temp_folder().unwrap() }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = taper().unwrap();
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.server.hub).env("HF_TOKEN", "hf_secret");
        command.current_dir(self.home.path()).args(line.split(' '));
        command
    }

    fn run(&self, line: &str) -> Outcome {
        run(&mut self.command(line)).unwrap()
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--timm--resnet18.tv_in1k")
    }

    fn partial(&self) -> PathBuf {
        self.repository().join(format!("blobs/{}.incomplete", sha256(&weights())))
    }
}

#[test]
fn weights_are_fetched_once_and_their_path_printed() {
    let setting = Setting::new();
    let first = setting.run("fetch weights resnet18");
    first.expect_code(0);
    let path = setting.repository().join("snapshots").join(COMMIT).join("model.safetensors");
    assert_eq!(first.stdout, format!("{}\n", path.display()));
    assert!(std::fs::read(&path).unwrap() == weights());
    for word in ["BSD-3-Clause", "69.75 %", COMMIT, &sha256(&weights()), "verified by checksum"] {
        assert!(first.stderr.contains(word), "no {word:?} in {}", first.stderr);
    }
    assert!(!first.stderr.contains("hf_secret"));
    let second = run(setting.command("fetch weights resnet18 -q").env("HF_HUB_OFFLINE", "1")).unwrap();
    second.expect_code(0);
    assert_eq!((second.stdout, second.stderr.as_str()), (first.stdout, ""));
    assert_eq!(setting.server.count(Leg::Store), 1);
}

/// Line, misbehaviour, exit code, word of the message.
type Case = (&'static str, Option<(Leg, Fault)>, i32, &'static str);

#[test]
fn mistakes_and_failures_have_their_codes() {
    let page = Fault::Answer { status: 200, headers: vec![("Content-Type", "text/html".into())], body: "<html>" };
    let cases: &[Case] = &[
        ("fetch weights resnet81", None, 2, "did you mean resnet18"),
        ("fetch weights timm/resnet18.tv_in1", None, 2, "did you mean timm/resnet18.tv_in1k"),
        ("fetch weights resnet18@v9", None, 2, "no revision v9"),
        ("fetch weights a/b/c", None, 2, "owner and name have letters"),
        ("fetch data cifar100", None, 2, "did you mean cifar-100"),
        ("fetch weights resnet18", Some((Leg::Head, status(403))), 6, "HTTP 403"),
        ("fetch weights resnet18", Some((Leg::Store, page)), 6, "a web page instead of the file"),
        ("fetch weights resnet18", Some((Leg::Store, Fault::Shorten(9))), 3, "9 bytes where 400000"),
        ("fetch weights resnet18", Some((Leg::Store, Fault::Corrupt)), 3, "SHA-256"),
    ];
    for (line, fault, code, expected) in cases {
        let setting = Setting::new();
        if let Some((leg, fault)) = fault {
            setting.server.faults(*leg, &[fault.clone(), fault.clone()]);
        }
        let outcome = setting.run(line);
        outcome.expect_code(*code);
        assert!(outcome.stderr.contains(expected), "{line}: {}", outcome.stderr);
        assert!(outcome.stdout.is_empty() && !outcome.stderr.contains("panicked"), "{line}: {outcome:?}");
    }
}

#[test]
fn variables_are_obeyed() {
    let setting = Setting::new();
    let cases: &[(&str, &str, &str, i32, &str)] = &[
        ("fetch weights resnet18", "HF_HUB_OFFLINE", "1", 6, "HF_HUB_OFFLINE"),
        ("fetch data cifar-10", "HF_HUB_OFFLINE", "yes", 6, "HF_HUB_OFFLINE"),
        ("fetch weights resnet18", "HF_ENDPOINT", "not-a-hub", 2, "HF_ENDPOINT"),
        ("fetch weights resnet18", "HF_TOKEN", "two words", 2, "HF_TOKEN"),
    ];
    for (line, variable, value, code, expected) in cases {
        let outcome = run(setting.command(line).env(variable, value)).unwrap();
        outcome.expect_code(*code);
        assert!(outcome.stderr.contains(expected), "{line}: {}", outcome.stderr);
    }
    assert!(setting.server.requests().is_empty());
    let elsewhere = setting.home.path().join("elsewhere");
    let outcome = run(setting.command("fetch weights resnet18").env("HF_HUB_CACHE", &elsewhere)).unwrap();
    assert!(outcome.expect_code(0).stdout.starts_with(elsewhere.to_str().unwrap()));
}

/// `/dev/full` takes no byte.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_exits_5() {
    let setting = Setting::new();
    std::fs::create_dir_all(setting.partial().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", setting.partial()).unwrap();
    let outcome = setting.run("fetch weights resnet18");
    assert!(outcome.expect_code(5).stderr.contains("no room"), "{}", outcome.stderr);
}

#[test]
fn a_killed_download_goes_on() {
    let setting = Setting::new();
    setting.server.fault(Leg::Store, Fault::Slow(Duration::from_millis(100)));
    let mut child =
        setting.command("fetch weights resnet18").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    while len(&setting.partial()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let have = len(&setting.partial());
    let outcome = setting.run("fetch weights resnet18");
    assert!(std::fs::read(outcome.expect_code(0).stdout.trim()).unwrap() == weights());
    assert_eq!(setting.server.ranges(Leg::Store), [String::new(), format!("bytes={have}-")]);
}

#[test]
fn processes_at_once_download_once() {
    let setting = Setting::new();
    setting.server.fault(Leg::Store, Fault::Slow(Duration::from_millis(50)));
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| setting.run("fetch weights resnet18"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for outcome in &outcomes {
        assert_eq!(outcome.expect_code(0).stdout, outcomes[0].stdout);
    }
    assert_eq!(setting.server.count(Leg::Store), 1);
}
