//! `taper inspect data`

use anyhow::Result;
use taper_data::{ChannelStats, Compose, DataSpec, OpenedData, Part, Recognised, Survey, open, survey};

use crate::images::are_files;

/// Prints what is in the data at `location`.
pub(super) fn run(location: &str) -> Result<()> {
    let data = open(&DataSpec::new(location))?;
    let dataset = &*data.dataset;
    println!("{location}: {} images in {} classes", dataset.len(), dataset.classes().len());
    println!("form      {}", serde_json::to_value(data.provenance.kind)?.as_str().unwrap_or_default());
    match &data.provenance.official {
        Recognised::Official { name } => println!("files     the publisher's own ({name})"),
        Recognised::Unofficial if are_files(&data) => println!("files     photos, read one by one"),
        Recognised::Unofficial => println!("files     not the publisher's bytes, structure in order"),
    }
    if data.provenance.num_ignored_files > 0 {
        println!("ignored   {} files that are hidden, no images or in no class", data.provenance.num_ignored_files);
    }
    println!("sha256    {}", data.provenance.sha256);
    let found = look_at(&data)?;
    println!("sizes     {}", found.sizes());
    if let Some(stats) = found.of_train() {
        println!(
            "mean      {:.5} {:.5} {:.5} (train, whole images, pixels scaled to 0..1)",
            stats.mean[0], stats.mean[1], stats.mean[2]
        );
        println!("std       {:.5} {:.5} {:.5}", stats.std[0], stats.std[1], stats.std[2]);
    }
    print_classes(&data, &found);
    println!("broken    {}", found.num_bad());
    for bad in found.parts.iter().flat_map(|(_, survey)| &survey.bad) {
        println!("  {}: {}", bad.name, bad.reason);
    }
    Ok(())
}

/// What one pass over all images found, by part; a part without images is not there.
struct Found {
    parts: Vec<(Part, Survey)>,
}

fn look_at(data: &OpenedData) -> Result<Found> {
    let parts = Part::ALL.into_iter().filter(|part| !data.official.get(*part).is_empty());
    let look = |part| Ok((part, survey(&*data.dataset, data.official.get(part), &Compose::default())?));
    Ok(Found { parts: parts.map(look).collect::<Result<_>>()? })
}

impl Found {
    fn num_bad(&self) -> usize {
        self.parts.iter().map(|(_, survey)| survey.bad.len()).sum()
    }

    fn of_train(&self) -> Option<ChannelStats> {
        self.parts.iter().find(|(part, _)| *part == Part::Train)?.1.stats
    }

    fn sizes(&self) -> String {
        let readable = || self.parts.iter().map(|(_, survey)| survey).filter(|survey| !survey.usable.is_empty());
        let least = |axis: usize| readable().map(|survey| survey.min_size[axis]).min().unwrap_or(0);
        let most = |axis: usize| readable().map(|survey| survey.max_size[axis]).max().unwrap_or(0);
        match ([least(0), least(1)], [most(0), most(1)]) {
            (_, [0, 0]) => "none readable".to_owned(),
            (least, most) if least == most => format!("all {}x{}", most[0], most[1]),
            (least, most) => format!("height {} to {}, width {} to {}", least[0], most[0], least[1], most[1]),
        }
    }
}

/// Images of each class and part; the broken ones are among them.
fn print_classes(data: &OpenedData, found: &Found) {
    let dataset = &*data.dataset;
    let mut counts = vec![vec![0_usize; found.parts.len()]; dataset.classes().len()];
    for (column, (part, _)) in found.parts.iter().enumerate() {
        for index in data.official.get(*part) {
            if let Some(row) = counts.get_mut(dataset.label(*index) as usize) {
                row[column] += 1;
            }
        }
        let of_class = |row: &Vec<usize>| row[column];
        let (fewest, most) = (counts.iter().map(of_class).min(), counts.iter().map(of_class).max());
        println!(
            "{part:<9} {} images, {} to {} a class",
            data.official.get(*part).len(),
            fewest.unwrap_or(0),
            most.unwrap_or(0)
        );
    }
    let names = found.parts.iter().map(|(part, _)| part.to_string()).collect::<Vec<_>>().join(", ");
    println!("classes   images in {names}");
    for (class, row) in dataset.classes().iter().zip(&counts) {
        println!("  {class:<30} {}", row.iter().map(|count| format!("{count:>6}")).collect::<String>());
    }
}
