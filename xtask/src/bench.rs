//! `cargo xtask bench`: how fast we are, beside PyTorch and stock candle on the same cores.
//!
//! Every figure comes from a process of its own. Where a peer is compared with, both run in turns,
//! ours, the peer's, ours, the peer's, and the ratio is taken within each turn: absolute times drift on
//! shared machines, and the drift is common to both. What is not common to both is how much each suffers from
//! other programs on its cores (a team of threads that wait for each other suffers most), so each table says
//! whether there were any. Tables go to standard output and, with `--json`, to a file.

mod comparison;
pub(crate) mod hardware;
mod loader;
mod ops;
mod programs;
mod startup;
mod statistics;
mod table;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use programs::{CpuPath, Peer, Programs};
use table::Table;

/// More cores than this, kept busy by others, make figures doubtful.
const QUIET_CORES: f64 = 0.1;

/// What is measured, and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// Tables to make; all of them when none is named
    #[arg(value_name = "TABLE")]
    tables: Vec<TableName>,
    /// Implementations to compare with; without, only our own figures are measured
    #[arg(long = "peer", value_name = "PEER")]
    peers: Vec<Peer>,
    /// Python with the packages of `xtask/peer/requirements.txt`; a virtual environment under the
    /// target folder is made when this is left out and PyTorch is a peer
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// Holds taper-check and PyTorch to these instructions
    #[arg(long, value_name = "PATH")]
    cpu_path: Option<CpuPath>,
    /// Threads of every program
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    /// Turns of ours and the peer's; ratios are medians over them
    #[arg(long, default_value = "3")]
    rounds: NonZeroUsize,
    /// Steps that count in each process; one more comes before
    #[arg(long, default_value = "3")]
    steps: NonZeroUsize,
    /// Leaves out the rows whose name does not contain this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Writes hardware, settings and figures there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A table.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum TableName {
    /// every convolution of each network, beside the peak of the machine
    Ops,
    /// training and evaluation steps
    Steps,
    /// crop, flip and normalisation on one core
    Loader,
    /// process start to the first step
    Startup,
    /// most memory of a training process
    Memory,
    /// one thread against several
    Threads,
}

/// A measured table.
struct Section {
    tables: Vec<Table>,
    /// The figures behind it.
    figures: Value,
    /// Rows that could not be measured.
    num_failed: usize,
}

/// Builds what is measured, measures and prints.
///
/// # Errors
/// A build that fails, a Python that cannot be prepared, a file that cannot be written. A row that cannot be measured
/// says why in its place and makes the exit code a failure.
pub(crate) fn run(root: &Path, settings: &Settings) -> Result<ExitCode> {
    let names = selected(&settings.tables);
    let programs = Programs::prepare(root, settings)?;
    let (mut figures, mut num_failed) = (Map::new(), 0);
    for name in names {
        let busy_cores = hardware::busy_cores();
        let mut section = measure(name, &programs, settings)?;
        if let (Some(table), Some(busy)) = (section.tables.last_mut(), busy_cores.filter(|busy| *busy > QUIET_CORES)) {
            table.note(format!("Doubtful: other programs kept {busy:.2} cores busy when this table was begun."));
        }
        for table in &section.tables {
            println!("\n{table}");
        }
        num_failed += section.num_failed;
        if let Some(value) = name.to_possible_value() {
            let section = json!({ "busy_cores_before": busy_cores, "figures": section.figures });
            figures.insert(value.get_name().to_owned(), section);
        }
    }
    if let Some(path) = &settings.json {
        write(root, path, settings, figures)?;
    }
    if num_failed > 0 {
        println!("\n{num_failed} rows could not be measured");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn selected(tables: &[TableName]) -> Vec<TableName> {
    TableName::value_variants().iter().copied().filter(|name| tables.is_empty() || tables.contains(name)).collect()
}

fn measure(name: TableName, programs: &Programs, settings: &Settings) -> Result<Section> {
    match name {
        TableName::Ops => ops::measure(programs, settings),
        TableName::Steps | TableName::Memory | TableName::Threads => comparison::measure(name, programs, settings),
        TableName::Loader => loader::measure(programs, settings),
        TableName::Startup => startup::measure(programs, settings),
    }
}

fn write(root: &Path, path: &Path, settings: &Settings, figures: Map<String, Value>) -> Result<()> {
    let peers: Vec<_> = settings.peers.iter().map(ToString::to_string).collect();
    let document = json!({
        "date": hardware::date(root),
        "commit": hardware::commit(root),
        "rustc": hardware::rustc(root),
        "hardware": hardware::describe(),
        "settings": {
            "threads": settings.threads,
            "rounds": settings.rounds,
            "steps": settings.steps,
            "peers": peers,
            "only": settings.only,
            "cpu_path": settings.cpu_path.map(CpuPath::ours),
        },
        "tables": figures,
    });
    let text = serde_json::to_string_pretty(&document)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

impl Settings {
    /// Whether a row of this name is wanted.
    fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|text| row.to_lowercase().contains(&text.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Settings, TableName, selected};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn parse(line: &str) -> Settings {
        Line::try_parse_from(line.split(' ')).unwrap().settings
    }

    #[test]
    fn tables_come_in_their_usual_order() {
        assert_eq!(selected(&parse("bench steps ops").tables), [TableName::Ops, TableName::Steps]);
        assert_eq!(selected(&parse("bench").tables).len(), 6);
    }

    #[test]
    fn only_takes_part_of_a_name_in_any_case() {
        let settings = parse("bench --only ResNet-18");
        assert!(settings.wants("resnet-18, batch 16"));
        assert!(!settings.wants("BaseNet"));
        assert!(parse("bench").wants("BaseNet"));
    }

    #[test]
    fn no_round_is_no_measurement() {
        assert!(Line::try_parse_from(["bench", "--rounds", "0"]).is_err());
    }
}
