//! Whether data are still those that a run was trained on: its classes, its images, its split.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::Result;
use serde::Deserialize;
use taper_data::{OpenedData, Part, Split};
use taper_train::sha256_of_file;

use crate::exit::bad_input;
use crate::image_files::{IMAGES, ImageFiles};
use crate::images::read_bad;
use crate::prepare::{read_json, read_split};

/// What is read back of `provenance.json`. Runs of older versions know less.
#[derive(Debug, Deserialize)]
struct Written {
    data: WrittenData,
    #[serde(default)]
    files_sha256: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct WrittenData {
    sha256: String,
    #[serde(default)]
    files: Vec<WrittenFile>,
}

#[derive(Debug, Deserialize)]
struct WrittenFile {
    name: String,
    sha256: String,
}

/// Finds a file of the run that is not as the run wrote it: its split, its classes, its configuration.
///
/// # Errors
/// Exit 3 with the file.
pub(crate) fn require_unedited(run: &Path) -> Result<()> {
    let written: Written = read_json(&run.join("provenance.json"))?;
    for (name, sha256) in &written.files_sha256 {
        let path = run.join(name);
        let found = sha256_of_file(&path)?;
        if found != *sha256 {
            return Err(bad_input(format!(
                "{} was changed since the run began: its SHA-256 is {found}, provenance.json has {sha256}; put the file \
                 back, or start a new run",
                path.display()
            )));
        }
    }
    Ok(())
}

/// What of the data is not as it was when the run began, in words; nothing if all is.
///
/// # Errors
/// Exit 3 if a file of the run cannot be read.
pub(crate) fn differences(run: &Path, data: &OpenedData) -> Result<Vec<String>> {
    let classes: Vec<String> = read_json(&run.join("classes.json"))?;
    let mut found: Vec<String> = class_differences(&classes, data.dataset.classes()).into_iter().collect();
    if run.join(IMAGES).is_file() {
        let images: ImageFiles = read_json(&run.join(IMAGES))?;
        let left_out = read_bad(run)?.into_iter().map(|bad| bad.name).collect();
        found.extend(images.differences(&*data.dataset, &left_out));
    } else {
        found.extend(content_differences(&read_json(&run.join("provenance.json"))?, data));
    }
    Ok(found)
}

/// Refuses data that are not as they were when the run began.
///
/// # Errors
/// Exit 3 with all that has changed.
pub(crate) fn require_same(run: &Path, data: &OpenedData) -> Result<()> {
    require_unedited(run)?;
    let found = differences(run, data)?;
    if found.is_empty() {
        return Ok(());
    }
    Err(bad_input(format!(
        "{} is not as it was when the run {} began: {}; put the data back, or start a new run",
        data.provenance.source,
        run.display(),
        found.join("; ")
    )))
}

/// Sets that lie in a few files: which of them has other bytes.
fn content_differences(written: &Written, data: &OpenedData) -> Option<String> {
    let (was, is) = (&written.data, &data.provenance);
    if was.sha256 == is.sha256 {
        return None;
    }
    let changed: Vec<&str> = is
        .files
        .iter()
        .filter(|file| !was.files.iter().any(|old| old.name == file.name && old.sha256 == file.sha256))
        .map(|file| file.name.as_str())
        .collect();
    let which = if changed.is_empty() { String::new() } else { format!(" ({})", changed.join(", ")) };
    Some(format!("other bytes{which}: SHA-256 {} instead of {}", is.sha256, was.sha256))
}

/// How two lists of classes differ, in words; `None` if they are the same in the same order.
pub(crate) fn class_differences(model: &[String], data: &[String]) -> Option<String> {
    if model == data {
        return None;
    }
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|name| !those.contains(name)).cloned().collect()
    };
    let (gone, new) = (only(model, data), only(data, model));
    let shown = |names: &[String]| {
        let more = if names.len() > 5 { ", …" } else { "" };
        format!("{}{more}", names[..names.len().min(5)].join(", "))
    };
    let mut parts = Vec::new();
    if let ([was], [is], true) = (&gone[..], &new[..], model.len() == data.len()) {
        parts.push(format!("class {was} is now {is}: renamed, or another one"));
    } else {
        for (names, what) in [(&new, "in the data alone"), (&gone, "in the model alone")] {
            if !names.is_empty() {
                parts.push(format!(
                    "{} of {} classes {what} ({})",
                    names.len(),
                    data.len().max(model.len()),
                    shown(names)
                ));
            }
        }
    }
    let order = |names: &[String], others: &[String]| -> Vec<String> {
        names.iter().filter(|name| others.contains(name)).cloned().collect()
    };
    let (of_model, of_data) = (order(model, data), order(data, model));
    if let Some((index, (was, is))) = of_model.iter().zip(&of_data).enumerate().find(|(_, (was, is))| was != is) {
        parts.push(format!("the classes have another order: {is} where {was} was, at {index}"));
    }
    if parts.is_empty() {
        parts.push("a class is listed twice".to_owned());
    }
    Some(parts.join("; "))
}

/// Images of the run that `split` would learn from, though the run kept them for val or test: what is measured on them
/// from then on is too good.
///
/// # Errors
/// Exit 3 if a file of the run cannot be read.
pub(crate) fn learnt_though_kept(run: &Path, data: &OpenedData, split: &Split) -> Result<Vec<String>> {
    let kept = read_split(run)?;
    let kept: HashSet<&String> = kept.val.iter().chain(&kept.test).collect();
    let learnt = split.get(Part::Train).iter().map(|index| data.dataset.name(*index));
    if !run.join(IMAGES).is_file() {
        let written: Written = read_json(&run.join("provenance.json"))?;
        let is_same_set = written.data.sha256 == data.provenance.sha256;
        return Ok(learnt.filter(|name| is_same_set && kept.contains(name)).collect());
    }
    let Some(now) = ImageFiles::of(&*data.dataset) else { return Ok(Vec::new()) };
    let then: ImageFiles = read_json(&run.join(IMAGES))?;
    let kept: HashSet<&str> = kept.iter().filter_map(|name| then.0.get(*name)?.sha256.as_deref()).collect();
    let is_kept = |name: &String| {
        now.0.get(name).and_then(|file| file.sha256.as_deref()).is_some_and(|sha256| kept.contains(sha256))
    };
    Ok(learnt.filter(is_kept).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn each_difference_of_classes_is_named() {
        let cases = [
            ("ant bee", "ant bee fly", "1 of 3 classes in the data alone (fly)"),
            ("ant bee fly", "ant fly", "1 of 3 classes in the model alone (bee)"),
            ("ant bee fly", "ant bug fly", "class bee is now bug: renamed, or another one"),
            ("ant bee fly", "bee ant fly", "the classes have another order: bee where ant was, at 0"),
            ("ant bee", "ant bee bee", "a class is listed twice"),
        ];
        for (model, data, words) in cases {
            let found = class_differences(&names(model), &names(data)).unwrap();
            assert_eq!(found, words, "{model} / {data}");
        }
        assert_eq!(class_differences(&names("ant bee"), &names("ant bee")), None);
    }
}
