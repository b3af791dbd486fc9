//! The layout that Python's `huggingface_hub` has too, read and written.

use std::path::Path;
use std::sync::Barrier;

use taper_hub::catalog::WeightsName;
use taper_hub::download::{FetchError, FileRecord, Network, Source, Verified, fetch_weights};

use crate::loopback::{COMMIT, Fault, Leg, git_sha1, sha256, status};
use crate::{CONFIG, Setting, assert_whole, weights};

#[test]
fn the_layout_is_pythons() {
    let setting = Setting::new();
    let large = assert_whole(setting.weights());
    let small = setting.fetch("o/n", "config.json").unwrap();
    let repository = setting.env.cache.join("models--o--n");
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    let link = |file: &str| std::fs::read_link(repository.join("snapshots").join(COMMIT).join(file)).unwrap();
    assert_eq!(link("w.bin"), Path::new("../../blobs").join(sha256(&weights())));
    assert_eq!(link("config.json"), Path::new("../../blobs").join(git_sha1(CONFIG)));
    assert!(setting.env.cache.join(".locks/models--o--n").join(format!("{}.lock", sha256(&weights()))).is_file());
    assert_eq!(std::fs::read_dir(repository.join("blobs")).unwrap().count(), 2);
    assert_eq!(small.path, repository.join("snapshots").join(COMMIT).join("config.json"));
    let expected = FileRecord {
        repository: "o/n".to_owned(),
        revision: COMMIT.to_owned(),
        file: "w.bin".to_owned(),
        size: 200_000,
        sha256: sha256(&weights()),
        etag: Some(sha256(&weights())),
        verified: Verified::Sha256,
    };
    assert_eq!((large.source, &large.record), (Source::Network, &expected));
    assert_eq!((small.record.verified, small.record.etag), (Verified::GitBlob, Some(git_sha1(CONFIG))));
}

#[test]
fn files_in_folders_link_further_up() {
    let setting = Setting::new();
    setting.server.add_large("o/n/a/b/w.bin", &weights());
    let fetched = assert_whole(setting.fetch("o/n", "a/b/w.bin"));
    let link = std::fs::read_link(&fetched.path).unwrap();
    assert_eq!(link, Path::new("../../../../blobs").join(sha256(&weights())));
}

/// Makes by hand what Python leaves behind.
fn pythons_cache(setting: &Setting, bytes: &[u8]) {
    let repository = setting.env.cache.join("models--o--n");
    let snapshot = repository.join("snapshots").join(COMMIT);
    for folder in [repository.join("refs"), repository.join("blobs"), snapshot.clone()] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(repository.join("refs/main"), COMMIT).unwrap();
    let blob = sha256(&weights());
    std::fs::write(repository.join("blobs").join(&blob), bytes).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join("w.bin")).unwrap();
}

#[test]
fn files_of_python_are_found() {
    let at_commit = format!("o/n@{COMMIT}");
    for (repository, network, heads) in [
        ("o/n", Network::Offline, 0),
        (&at_commit, Network::Offline, 0),
        (&at_commit, Network::Online, 0),
        ("o/n", Network::Online, 1),
    ] {
        let mut setting = Setting::new();
        setting.env.network = network;
        pythons_cache(&setting, &weights());
        let fetched = assert_whole(setting.fetch(repository, "w.bin"));
        assert_eq!((fetched.source, fetched.record.verified), (Source::Cache, Verified::Sha256));
        assert_eq!(fetched.record.sha256, sha256(&weights()));
        assert_eq!((setting.server.count(Leg::Head), setting.server.count(Leg::Store)), (heads, 0), "{repository}");
    }
}

/// Bytes that are not those of the ETag are fetched again; without network that is an error.
#[test]
fn damaged_files_are_found_out() {
    let at_commit = format!("o/n@{COMMIT}");
    for repository in ["o/n", &at_commit] {
        let mut setting = Setting::new();
        pythons_cache(&setting, b"damaged");
        assert_eq!(assert_whole(setting.fetch(repository, "w.bin")).source, Source::Network);
        std::fs::write(setting.blob(&sha256(&weights())), "damaged again").unwrap();
        setting.env.network = Network::Offline;
        let error = setting.fetch(repository, "w.bin").unwrap_err();
        assert!(matches!(error, FetchError::Digest { .. }), "{error}");
    }
}

#[test]
fn a_hub_that_is_down_leaves_the_cache() {
    let setting = Setting::new();
    pythons_cache(&setting, &weights());
    for fault in [Fault::Hang, status(503), status(403)] {
        setting.server.fault(Leg::Head, fault);
        assert_eq!(assert_whole(setting.weights()).source, Source::Cache);
    }
    assert_eq!(setting.server.count(Leg::Head), 3, "it is asked once each time");
}

#[test]
fn a_branch_that_moved_is_followed() {
    let setting = Setting::new();
    pythons_cache(&setting, &weights());
    let refs = setting.env.cache.join("models--o--n/refs/main");
    let old = "ffffffffffffffffffffffffffffffffffffffff";
    std::fs::write(&refs, old).unwrap();
    let fetched = assert_whole(setting.weights());
    assert_eq!((fetched.source, fetched.record.revision.as_str()), (Source::Cache, COMMIT));
    assert_eq!(std::fs::read_to_string(&refs).unwrap(), COMMIT);
}

#[test]
fn a_ref_that_is_no_commit_leads_nowhere() {
    let mut setting = Setting::new();
    pythons_cache(&setting, &weights());
    setting.env.network = Network::Offline;
    std::fs::write(setting.env.cache.join("models--o--n/refs/main"), "../../../etc").unwrap();
    assert!(matches!(setting.fetch("o/n", "passwd"), Err(FetchError::Offline { .. })));
}

/// An ETag of no known form: the size is all there is, and the record says so.
#[test]
fn other_etags_leave_the_size() {
    let setting = Setting::new();
    setting.server.fault(Leg::Head, Fault::Header("X-Linked-Etag", "W/\"opaque-1\"".to_owned()));
    let fetched = assert_whole(setting.weights());
    assert_eq!((fetched.record.verified, fetched.record.etag.as_deref()), (Verified::Size, Some("opaque-1")));
    let setting = Setting::new();
    setting.server.fault(Leg::Head, Fault::Header("X-Linked-Size", String::new()));
    assert_eq!(assert_whole(setting.weights()).record.verified, Verified::Sha256);
}

#[test]
fn many_at_once_download_once() {
    let setting = Setting::new();
    setting.server.fault(Leg::Store, Fault::Slow(std::time::Duration::from_millis(20)));
    let barrier = Barrier::new(4);
    let sources: Vec<Source> = std::thread::scope(|scope| {
        let one = || {
            barrier.wait();
            assert_whole(setting.weights()).source
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(setting.server.count(Leg::Store), 1);
    assert_eq!(sources.iter().filter(|source| **source == Source::Network).count(), 1);
}

/// timm's configuration holds the preprocessing, and Python's timm looks for no other file.
#[test]
fn a_configuration_of_timm_is_enough() {
    let mut setting = Setting::new();
    setting.server.add_large("t/m/model.safetensors", &weights());
    setting.server.add_small("t/m/config.json", b"{\"pretrained_cfg\": {}}");
    for file in ["model.safetensors", "config.json"] {
        setting.fetch("t/m", file).unwrap();
    }
    setting.env.network = Network::Offline;
    let fetched = fetch_weights(&setting.env, &WeightsName::parse("t/m").unwrap(), &mut |_| {}).unwrap();
    assert!(fetched.config.is_some() && fetched.preprocessor.is_none());
    assert!(setting.server.requests().iter().all(|request| !request.path.contains("preprocessor")));
}

#[test]
fn weights_come_with_their_configuration() {
    let mut setting = Setting::new();
    setting.server.add_large("p/q/pytorch_model.bin", &weights());
    setting.server.add_small("p/q/config.json", CONFIG);
    let name = WeightsName::parse("p/q").unwrap();
    for network in [Network::Online, Network::Online, Network::Offline] {
        setting.env.network = network;
        let fetched = fetch_weights(&setting.env, &name, &mut |_| {}).unwrap();
        assert_eq!(fetched.weights.record.file, "pytorch_model.bin");
        assert_eq!(std::fs::read(fetched.config.unwrap().path).unwrap(), CONFIG);
        assert_eq!(fetched.preprocessor, None);
    }
    let asked = |file: &str| setting.server.requests().iter().filter(|request| request.path.ends_with(file)).count();
    // That a commit lacks a file is remembered; of a branch it is asked anew.
    assert_eq!((asked("preprocessor_config.json"), asked("model.safetensors")), (1, 2));
    setting.env.network = Network::Online;
    let error = fetch_weights(&setting.env, &WeightsName::parse("o/n").unwrap(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no file model.safetensors or pytorch_model.bin"), "{error}");
    setting.env.network = Network::Offline;
    let error = fetch_weights(&setting.env, &WeightsName::parse("o/n").unwrap(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }), "{error}");
}
