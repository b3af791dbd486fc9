//! Data sets: archives fetched, verified, unpacked, whole or not at all.

use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use md5::{Digest as _, Md5};
use taper_hub::archives::{Archive, DataSet, FetchedData, PublishedSum, fetch_data};
use taper_hub::download::{FetchError, Network, Result, Source};

use crate::Setting;
use crate::loopback::{Fault, Leg, sha256, status};

fn tar_gz(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn birds() -> Vec<u8> {
    tar_gz(&[("birds/images.txt", b"1 a.jpg\n"), ("birds/images/a.jpg", b"photo"), ("beside.txt", b"x")])
}

struct Case {
    setting: Setting,
    urls: Vec<String>,
    md5: String,
    most_bytes: u64,
}

impl Case {
    /// An archive that is published with the right sum.
    fn new(bytes: &[u8]) -> Self {
        let setting = Setting::new();
        let urls = vec![setting.server.add_plain("birds.tgz", bytes)];
        Self { setting, urls, md5: md5(bytes), most_bytes: 1000 }
    }

    fn output(&self) -> PathBuf {
        self.setting.folder.path().join("data")
    }

    fn fetch(&self) -> Result<FetchedData> {
        let urls: Vec<&str> = self.urls.iter().map(String::as_str).collect();
        let sums = [PublishedSum::Md5(&self.md5)];
        let archives = [Archive { file: "birds.tgz", urls: &urls, size: None, sums: &sums }];
        let set = DataSet {
            name: "birds",
            folder: "birds",
            top: Some("birds"),
            archives: &archives,
            most_bytes: self.most_bytes,
            most_files: 10,
            terms: "",
        };
        fetch_data(&self.setting.env, &set, &self.output(), &mut |_| {})
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = entries(&self.output());
        names.retain(|name| !name.ends_with(".lock"));
        names
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let read = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = read.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_set_is_fetched_once() {
    let case = Case::new(&birds());
    let fetched = case.fetch().unwrap();
    assert_eq!((fetched.path.clone(), fetched.source), (case.output().join("birds"), Source::Network));
    assert_eq!(entries(&fetched.path), [".fetched.json", "beside.txt", "images", "images.txt"]);
    assert_eq!(fetched.archives[0].sha256, sha256(&birds()));
    assert_eq!(case.names(), ["birds"]);
    let again = case.fetch().unwrap();
    assert_eq!((again.source, again.archives), (Source::Cache, fetched.archives));
    assert_eq!(case.setting.server.count(Leg::Store), 1);
    let token = case.setting.server.requests()[0].headers.get("authorization").cloned();
    assert_eq!(token, None, "the token is the hub's alone");
}

#[test]
fn a_broken_download_goes_on_and_the_next_address_is_tried() {
    let mut case = Case::new(&birds());
    case.urls.insert(0, format!("{}/gone.tgz", case.setting.server.store));
    case.setting.server.faults(Leg::Store, &[status(404), Fault::BreakAfter(20)]);
    let fetched = case.fetch().unwrap();
    assert_eq!(fetched.archives[0].url, case.urls[1]);
    assert_eq!(case.setting.server.ranges(Leg::Store), ["", "", "bytes=20-"]);
}

#[test]
fn wrong_bytes_and_hostile_archives_leave_no_folder() {
    let mut wrong = Case::new(&birds());
    wrong.md5 = md5(b"other");
    assert!(matches!(wrong.fetch(), Err(FetchError::Digest { algorithm: "MD5", .. })));
    let mut large = Case::new(&birds());
    large.most_bytes = 5;
    assert!(matches!(large.fetch(), Err(FetchError::Archive { .. })));
    let page = Case::new(&birds());
    let html = Fault::Answer { status: 200, headers: vec![("Content-Type", "text/html".into())], body: "<html>" };
    page.setting.server.fault(Leg::Store, html);
    assert!(matches!(page.fetch(), Err(FetchError::WebPage { .. })));
    for case in [wrong, large, page] {
        assert_eq!(case.names(), [".birds.incomplete"]);
    }
}

#[test]
fn an_archive_that_was_fetched_is_not_fetched_again() {
    let mut case = Case::new(&birds());
    case.most_bytes = 5;
    case.fetch().unwrap_err();
    case.most_bytes = 1000;
    case.fetch().unwrap();
    assert_eq!(case.setting.server.count(Leg::Store), 1);
}

#[test]
fn what_is_in_the_way_stays() {
    let case = Case::new(&birds());
    let own = case.output().join("birds");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("mine.txt"), "mine").unwrap();
    assert!(matches!(case.fetch(), Err(FetchError::Occupied { .. })));
    assert_eq!(entries(&own), ["mine.txt"]);
    assert!(case.setting.server.requests().is_empty());
}

#[test]
fn offline_asks_nobody() {
    let mut case = Case::new(&birds());
    case.setting.env.network = Network::Offline;
    assert!(matches!(case.fetch(), Err(FetchError::Offline { .. })));
    assert!(case.setting.server.requests().is_empty());
}
