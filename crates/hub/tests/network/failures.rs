//! Servers that say no, or something else than the file.

use std::time::{Duration, Instant};

use taper_hub::download::{FetchError, Network, Trouble};

use crate::loopback::{COMMIT, Fault, Leg, sha256, status};
use crate::{Setting, assert_whole, weights, whole_text};

fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Fault {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Fault::Answer { status, headers, body }
}

/// Every fault three times, as often as it is tried: the error must come, with these words, and no file.
#[test]
fn final_failures() {
    let page = || answer(200, &[("Content-Type", "text/html; charset=utf-8")], "<html>Please sign in</html>");
    let gated = || answer(403, &[("X-Error-Code", "GatedRepo")], "");
    let bad_token = || answer(401, &[("X-Error-Message", "Invalid credentials in Authorization header")], "");
    let long_pause = || answer(429, &[("Retry-After", "3600")], "");
    let cases: Vec<(Leg, Fault, &str, Trouble)> = vec![
        (Leg::Head, page(), "a web page instead of the file; a proxy", Trouble::Network),
        (Leg::Store, page(), "it begins \"<html>Please sign in</html>\"", Trouble::Network),
        (Leg::Head, gated(), "accept its conditions", Trouble::Network),
        (Leg::Head, bad_token(), "check HF_TOKEN", Trouble::Network),
        (Leg::Head, status(403), "(HTTP 403)", Trouble::Network),
        (Leg::Store, status(403), "(HTTP 403)", Trouble::Network),
        (Leg::Store, status(404), "HTTP 404", Trouble::Network),
        (Leg::Head, long_pause(), "asks to come back in 3600 s", Trouble::Network),
        (Leg::Head, status(429), "tried 3 times", Trouble::Network),
        (Leg::Store, status(503), "the server answers 503", Trouble::Network),
        (Leg::Head, Fault::Hang, "tried 3 times", Trouble::Network),
        (Leg::Head, Fault::Header("X-Repo-Commit", String::new()), "no X-Repo-Commit", Trouble::Network),
        (Leg::Head, Fault::Header("X-Repo-Commit", "../../x".to_owned()), "is no commit", Trouble::Network),
        (Leg::Head, Fault::Header("X-Linked-Etag", String::new()), "no ETag", Trouble::Network),
        (Leg::Head, Fault::Header("X-Linked-Etag", "\"../x\"".to_owned()), "the name of a file", Trouble::Network),
        (Leg::Get, Fault::Header("Location", "https://".to_owned()), "it is no web address", Trouble::Network),
        (Leg::Store, Fault::Shorten(1000), "has 1000 bytes where 200000", Trouble::BadData),
        (Leg::Store, Fault::Header("Content-Length", "300000".to_owned()), "has 300000 bytes", Trouble::BadData),
        (Leg::Store, Fault::Corrupt, "has the SHA-256", Trouble::BadData),
    ];
    for (leg, fault, expected, trouble) in cases {
        let setting = Setting::new();
        setting.server.faults(leg, &[fault.clone(), fault.clone(), fault.clone()]);
        let error = setting.weights().unwrap_err();
        let text = whole_text(&error);
        assert!(text.contains(expected), "{fault:?}: {text}");
        assert_eq!(error.trouble(), trouble, "{fault:?}");
        assert!(!setting.blob(&sha256(&weights())).exists(), "{fault:?}");
        assert!(!setting.env.cache.join("models--o--n/snapshots").exists(), "{fault:?}");
        assert!(!text.contains("hf_secret"), "{text}");
    }
}

#[test]
fn missing_parts_are_told_apart() {
    let setting = Setting::new();
    let cases = [
        ("o/none", "w.bin", "no repository o/none"),
        ("o/n@v9", "w.bin", "repository o/n has no revision v9"),
        ("o/n", "none.bin", "repository o/n has no file none.bin in revision main"),
    ];
    for (repository, file, expected) in cases {
        let error = setting.fetch(repository, file).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.trouble(), Trouble::Usage);
    }
    let near = setting.fetch("timm/resnet18.tv_in1", "w.bin").unwrap_err().to_string();
    assert!(near.contains("did you mean timm/resnet18.tv_in1k"), "{near}");
}

/// A passing fault, and the file nevertheless.
#[test]
fn passing_failures() {
    let cases: Vec<(Leg, Vec<Fault>)> = vec![
        (Leg::Head, vec![status(500), status(502)]),
        (Leg::Get, vec![status(503), status(408)]),
        (Leg::Store, vec![status(504), status(429)]),
        (Leg::Head, vec![Fault::Hang]),
        (Leg::Store, vec![Fault::Hang, Fault::Hang]),
        (Leg::Store, vec![Fault::Stall(Duration::from_millis(600))]),
        (Leg::Head, vec![Fault::Stall(Duration::from_millis(600))]),
        (Leg::Store, vec![Fault::Slow(Duration::from_millis(60))]),
        (Leg::Store, vec![Fault::Corrupt]),
        (Leg::Store, vec![Fault::Header("Content-Range", "bytes 7-9/10".to_owned())]),
    ];
    for (leg, faults) in cases {
        let mut setting = Setting::new();
        setting.env.patience.read = Duration::from_millis(300);
        setting.server.faults(leg, &faults);
        let fetched = setting.weights();
        assert!(fetched.is_ok(), "{faults:?}: {fetched:?}");
        assert_whole(fetched);
    }
}

#[test]
fn pauses_grow_and_obey_the_server() {
    let setting = Setting::new();
    setting.server.faults(Leg::Head, &[status(500), answer(429, &[("Retry-After", "1")], "")]);
    let started = Instant::now();
    let (fetched, pauses) = setting.weights_with_pauses();
    assert_whole(fetched);
    assert_eq!(pauses, [Duration::from_millis(1), Duration::from_secs(1)]);
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn the_token_stays_with_the_hub() {
    let setting = Setting::new();
    setting.weights().unwrap();
    setting.fetch("o/n", "config.json").unwrap();
    let requests = setting.server.requests();
    for request in &requests {
        let token = request.headers.get("authorization").map(String::as_str);
        let expected = if request.leg == Leg::Store { None } else { Some("Bearer hf_secret") };
        assert_eq!(token, expected, "{request:?}");
        assert_eq!(request.headers["accept-encoding"], "identity");
    }
    assert_eq!((setting.server.count(Leg::Store), setting.server.count(Leg::Head)), (1, 2));
}

#[test]
fn a_renamed_repository_is_followed() {
    let setting = Setting::new();
    let fetched = assert_whole(setting.fetch("renamed/n", "w.bin"));
    assert_eq!((fetched.record.repository.as_str(), fetched.record.revision.as_str()), ("renamed/n", COMMIT));
}

#[test]
fn redirects_end() {
    let setting = Setting::new();
    let around = answer(302, &[("Location", "/o/n/resolve/main/w.bin")], "");
    setting.server.faults(Leg::Head, &vec![around; 11]);
    let error = setting.weights().unwrap_err();
    assert!(matches!(error, FetchError::Redirect { .. }), "{error}");
}

#[test]
fn nobody_listens() {
    let mut setting = Setting::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    setting.env.endpoint = format!("http://{free}");
    let error = setting.weights().unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { attempts: 3, .. }), "{error}");
    assert_eq!(error.trouble(), Trouble::Network);
}

#[test]
fn offline_asks_nobody() {
    let mut setting = Setting::new();
    setting.env.network = Network::Offline;
    let error = setting.weights().unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    assert_eq!(error.trouble(), Trouble::Network);
    assert!(setting.server.requests().is_empty());
}

/// `/dev/full` takes no byte.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_apart() {
    let setting = Setting::new();
    let partial = setting.blob(&format!("{}.incomplete", sha256(&weights())));
    std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    let error = setting.weights().unwrap_err();
    assert!(matches!(error, FetchError::NoRoom { size: Some(200_000), .. }), "{error:?}");
    assert_eq!(error.trouble(), Trouble::NoRoom);
    assert!(error.to_string().contains("HF_HUB_CACHE"), "{error}");
}

#[test]
fn a_cache_that_cannot_be_made() {
    let setting = Setting::new();
    std::fs::write(&setting.env.cache, "in the way").unwrap();
    let error = setting.weights().unwrap_err();
    assert!(matches!(error, FetchError::Io { .. }), "{error:?}");
    assert!(error.to_string().contains(setting.env.cache.to_str().unwrap()), "{error}");
}
