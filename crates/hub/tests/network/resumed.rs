//! Connections that break, and downloads that go on.

use taper_hub::download::{Event, FetchError, Repository, fetch_file};

use crate::loopback::{Fault, Leg, sha256};
use crate::{Setting, assert_whole, weights, whole_text};

#[test]
fn a_broken_connection_goes_on_where_it_was() {
    let setting = Setting::new();
    setting.server.faults(Leg::Store, &[Fault::BreakAfter(60_000), Fault::BreakAfter(70_000)]);
    assert_whole(setting.weights());
    assert_eq!(setting.server.ranges(Leg::Store), ["", "bytes=60000-", "bytes=130000-"]);
}

#[test]
fn progress_resets_the_count_of_tries() {
    let setting = Setting::new();
    // Seven breaks, where three tries in a row are allowed.
    setting.server.faults(Leg::Store, &vec![Fault::BreakAfter(20_000); 7]);
    assert_whole(setting.weights());
    assert_eq!(setting.server.count(Leg::Store), 8);
}

#[test]
fn an_interrupted_process_goes_on_where_it_was() {
    let setting = Setting::new();
    setting.server.faults(Leg::Store, &[Fault::BreakAfter(90_000), Fault::Hang, Fault::Hang, Fault::Hang]);
    assert!(matches!(setting.weights(), Err(FetchError::Unreachable { .. })));
    let partial = setting.blob(&format!("{}.incomplete", sha256(&weights())));
    assert_eq!(std::fs::metadata(&partial).unwrap().len(), 90_000);
    let mut started = Vec::new();
    let repository = Repository::parse("o/n").unwrap();
    let fetched = fetch_file(&setting.env, &repository, "w.bin", &mut |event| {
        if let Event::Started { size, have, .. } = event {
            started.push((size, have));
        }
    });
    assert_whole(fetched);
    assert_eq!(started, [(Some(200_000), 90_000)]);
    assert!(!partial.exists());
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let setting = Setting::new();
    setting.server.faults(Leg::Store, &[Fault::BreakAfter(60_000), Fault::IgnoreRange(usize::MAX)]);
    assert_whole(setting.weights());
    assert_eq!(setting.server.count(Leg::Store), 2);
}

#[test]
fn a_server_that_always_breaks_at_the_same_place_is_given_up() {
    let setting = Setting::new();
    setting.server.faults(Leg::Store, &vec![Fault::IgnoreRange(60_000); 20]);
    let error = setting.weights().unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { attempts: 3, .. }), "{}", whole_text(&error));
    assert_eq!(setting.server.count(Leg::Store), 3);
}

/// What lies there is the start of another file, or more than the file: it is found out and fetched anew.
#[test]
fn leftovers_of_another_file() {
    for leftover in [vec![7; 1000], vec![7; 200_000], vec![7; 300_000]] {
        let setting = Setting::new();
        let partial = setting.blob(&format!("{}.incomplete", sha256(&weights())));
        std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
        std::fs::write(&partial, &leftover).unwrap();
        assert_whole(setting.weights());
    }
}

#[test]
fn a_whole_file_without_its_name_is_not_fetched_again() {
    let setting = Setting::new();
    let partial = setting.blob(&format!("{}.incomplete", sha256(&weights())));
    std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::fs::write(&partial, weights()).unwrap();
    assert_whole(setting.weights());
    assert_eq!(setting.server.count(Leg::Store), 0);
}
