//! Steps side by side: speed against each peer, memory, and several threads against one.

use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::programs::{Peer, Programs, number, objects};
use super::statistics::Spread;
use super::table::Table;
use super::{Section, Settings, TableName};

/// Two processes whose figures are compared.
struct Comparison {
    table: TableName,
    name: &'static str,
    /// What ours does.
    workload: Workload,
    other: Other,
    /// Ratio that must be reached.
    must: &'static str,
    /// What is aimed at.
    goal: &'static str,
}

/// What is computed, in the options of `taper-check step` and of the PyTorch peer.
#[derive(Clone, Copy)]
struct Workload {
    model: &'static str,
    width: &'static str,
    batch: usize,
    mode: &'static str,
}

/// What ours is compared with.
#[derive(Clone, Copy)]
enum Other {
    /// PyTorch with activations of this type.
    Torch(&'static str),
    /// Stock candle.
    Candle,
    /// Ours on one thread.
    OneThread,
}

const fn train(model: &'static str, width: &'static str, batch: usize) -> Workload {
    Workload { model, width, batch, mode: "train" }
}

const BASENET: Workload = train("basenet", "1", 8);

const fn row(
    table: TableName,
    name: &'static str,
    workload: Workload,
    other: Other,
    must: &'static str,
    goal: &'static str,
) -> Comparison {
    Comparison { table, name, workload, other, must, goal }
}

/// Every row of the three tables; ours is f32 throughout.
const COMPARISONS: [Comparison; 9] = [
    row(TableName::Steps, "BaseNet, batch 8", BASENET, Other::Torch("f32"), "2.0", "3.0"),
    row(TableName::Steps, "BaseNet, batch 8, peer in bf16", BASENET, Other::Torch("bf16"), "1.0", "1.5"),
    row(
        TableName::Steps,
        "BaseNet, width 0.125, batch 64",
        train("basenet", "0.125", 64),
        Other::Torch("f32"),
        "1.5",
        "2.5",
    ),
    row(TableName::Steps, "ResNet-18, batch 16", train("resnet18", "1", 16), Other::Torch("f32"), "1.3", "2.2"),
    row(TableName::Steps, "ResNet-50, batch 8", train("resnet50", "1", 8), Other::Torch("f32"), "1.0", "1.4"),
    row(
        TableName::Steps,
        "ResNet-18, batch 32, evaluation",
        Workload { mode: "eval", ..train("resnet18", "1", 32) },
        Other::Torch("f32"),
        "1.2",
        "2.0",
    ),
    row(TableName::Steps, "BaseNet, batch 8, stock candle", BASENET, Other::Candle, "6", "12"),
    row(TableName::Memory, "BaseNet, batch 32", train("basenet", "1", 32), Other::Torch("f32"), "1.0", "1.6 GiB"),
    row(TableName::Threads, "BaseNet, batch 8", BASENET, Other::OneThread, "1.8", "1.95"),
];

/// Figures of one row, a value a round.
#[derive(Debug, Default)]
struct Pairs {
    ours: Vec<f64>,
    theirs: Vec<f64>,
    /// Every object that was printed.
    objects: Vec<Value>,
}

/// Measures the rows of one table.
pub(super) fn measure(name: TableName, programs: &Programs, settings: &Settings) -> Result<Section> {
    let mut section = Section { tables: Vec::new(), figures: Value::Null, num_failed: 0 };
    let (mut table, mut figures) = (empty_table(name, settings), Vec::new());
    for comparison in COMPARISONS.iter().filter(|row| row.table == name && settings.wants(row.name)) {
        println!("== {}: {} rounds", comparison.name, settings.rounds);
        match run(comparison, programs, settings) {
            Ok(pairs) => {
                table.push(comparison.cells(&pairs));
                figures.push(comparison.to_json(&pairs));
            }
            Err(error) => {
                section.num_failed += 1;
                table.push([comparison.name, "not measured"]);
                table.note(format!("{}: {error:#}", comparison.name));
                figures.push(json!({ "name": comparison.name, "error": format!("{error:#}") }));
            }
        }
    }
    section.tables.push(table);
    section.figures = figures.into();
    Ok(section)
}

fn empty_table(name: TableName, settings: &Settings) -> Table {
    let threads = settings.threads;
    let (title, unit) = match name {
        TableName::Memory => (format!("Peak memory, MiB, {threads} threads; ratio = peer's / ours"), "MiB"),
        TableName::Threads => (format!("{threads} threads against one; images/s"), "images/s"),
        _ => (format!("Steps, images/s, {threads} threads; ratio = ours / peer's"), "images/s"),
    };
    Table::new(title, &["measure", &format!("ours, {unit}"), "peer", &format!("peer, {unit}"), "ratio", "must", "goal"])
}

/// Ours, the other's, ours, the other's; ours alone where the other was not asked for.
fn run(comparison: &Comparison, programs: &Programs, settings: &Settings) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    for _ in 0..settings.rounds.get() {
        let object = comparison.run_ours(programs, settings.threads.get(), settings)?;
        pairs.ours.push(comparison.figure(&object)?);
        pairs.objects.push(object);
        if let Some(object) = comparison.run_other(programs, settings)? {
            pairs.theirs.push(comparison.figure(&object)?);
            pairs.objects.push(object);
        }
    }
    Ok(pairs)
}

impl Comparison {
    fn run_ours(&self, programs: &Programs, threads: usize, settings: &Settings) -> Result<Value> {
        let mut command = programs.check(threads);
        command.arg("step");
        self.step(command, "f32", threads, settings)
    }

    /// The other's object, if it was asked for.
    fn run_other(&self, programs: &Programs, settings: &Settings) -> Result<Option<Value>> {
        let threads = settings.threads.get();
        let (command, dtype) = match self.other {
            Other::OneThread => return self.run_ours(programs, 1, settings).map(Some),
            Other::Torch(dtype) if settings.peers.contains(&Peer::Torch) => (programs.torch()?, dtype),
            Other::Candle if settings.peers.contains(&Peer::Candle) => {
                let mut command = programs.check(threads);
                command.args(["step", "--peer", "candle"]);
                (command, "f32")
            }
            Other::Torch(_) | Other::Candle => return Ok(None),
        };
        self.step(command, dtype, threads, settings).map(Some)
    }

    fn step(&self, mut command: Command, dtype: &str, threads: usize, settings: &Settings) -> Result<Value> {
        let Workload { model, width, batch, mode } = self.workload;
        command.args(["--model", model, "--width", width, "--mode", mode, "--dtype", dtype, "--warmup", "1"]);
        // The second step has reached the most memory that any step takes.
        let steps = if self.table == TableName::Memory { 1 } else { settings.steps.get() };
        let numbers = [("--batch", batch), ("--threads", threads), ("--steps", steps)];
        for (option, value) in numbers {
            command.args([option, &value.to_string()]);
        }
        // Each program prints one line; a further one would be of no use here.
        Ok(objects(&mut command)?.swap_remove(0))
    }

    /// The compared number: images a second, or MiB.
    fn figure(&self, object: &Value) -> Result<f64> {
        match self.table {
            TableName::Memory => Ok(number(object, "peak_memory_bytes")? / f64::from(1 << 20)),
            _ => number(object, "images_per_second"),
        }
    }

    fn other_name(&self) -> String {
        match self.other {
            Other::Torch(dtype) => format!("torch {dtype}"),
            Other::Candle => "stock candle".to_owned(),
            Other::OneThread => "1 thread".to_owned(),
        }
    }

    /// Above 1 is better than the other, whatever the figure.
    fn ratio(&self, pairs: &Pairs) -> Option<Spread> {
        match self.table {
            TableName::Memory => Spread::of_ratios(&pairs.theirs, &pairs.ours),
            _ => Spread::of_ratios(&pairs.ours, &pairs.theirs),
        }
    }

    fn cells(&self, pairs: &Pairs) -> [String; 7] {
        let digits = if self.table == TableName::Memory { 0 } else { 2 };
        let median = |values: &[f64]| match Spread::of(values) {
            Some(spread) => format!("{:.digits$}", spread.median),
            None => "not run".to_owned(),
        };
        let ratio = self.ratio(pairs).map_or_else(String::new, |ratio| ratio.show(2));
        let (ours, theirs) = (median(&pairs.ours), median(&pairs.theirs));
        [self.name.to_owned(), ours, self.other_name(), theirs, ratio, self.must.to_owned(), self.goal.to_owned()]
    }

    fn to_json(&self, pairs: &Pairs) -> Value {
        json!({
            "name": self.name,
            "other": self.other_name(),
            "ours": pairs.ours,
            "theirs": pairs.theirs,
            "ratio": self.ratio(pairs).map(Spread::to_json),
            "must": self.must,
            "goal": self.goal,
            "processes": pairs.objects,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{COMPARISONS, Pairs};
    use crate::bench::TableName;

    fn pairs(ours: &[f64], theirs: &[f64]) -> Pairs {
        Pairs { ours: ours.to_vec(), theirs: theirs.to_vec(), objects: Vec::new() }
    }

    #[test]
    fn more_images_and_less_memory_are_better() {
        let steps = COMPARISONS.iter().find(|row| row.table == TableName::Steps).unwrap();
        let memory = COMPARISONS.iter().find(|row| row.table == TableName::Memory).unwrap();
        let pairs = pairs(&[4.0, 4.0], &[2.0, 1.0]);
        assert_eq!(steps.ratio(&pairs).unwrap().median, 3.0);
        assert_eq!(memory.ratio(&pairs).unwrap().median, 0.375);
    }

    #[test]
    fn a_peer_that_was_not_asked_for_leaves_its_cells_empty() {
        let cells = COMPARISONS[0].cells(&pairs(&[4.0, 5.0], &[]));
        assert_eq!(cells[1..5], ["4.50", "torch f32", "not run", ""]);
        assert!(COMPARISONS[0].to_json(&pairs(&[4.0], &[]))["ratio"].is_null());
    }

    #[test]
    fn names_are_unique_within_a_table() {
        for (index, row) in COMPARISONS.iter().enumerate() {
            let same = |other: &super::Comparison| other.table == row.table && other.name == row.name;
            assert!(!COMPARISONS[..index].iter().any(same), "{}", row.name);
        }
    }
}
