//! Every convolution of each network, and what they come to together.
//!
//! Each op is timed between two short runs of nothing but multiply-adds on the same threads, and compared with the faster
//! of them: clocks fall under load and shared machines have other guests, so that one peak, measured when nothing else
//! ran, is not the peak that an op had.

use anyhow::Result;
use serde_json::{Value, json};

use super::programs::{Programs, number, objects};
use super::table::Table;
use super::{Section, Settings};

/// Networks and the batches that they are trained with.
const NETWORKS: [(&str, usize); 3] = [("basenet", 8), ("resnet18", 16), ("resnet50", 8)];
/// The three passes, as keys of the objects.
const PASSES: [&str; 3] = ["forward", "input_gradient", "weight_gradient"];

/// Measures each network in one process, with `rounds` repetitions of each op.
pub(super) fn measure(programs: &Programs, settings: &Settings) -> Result<Section> {
    let mut section = Section { tables: Vec::new(), figures: Value::Null, num_failed: 0 };
    let mut summary = summary_table(settings);
    let mut figures = Vec::new();
    for (model, batch) in NETWORKS.into_iter().filter(|(model, _)| settings.wants(model)) {
        println!("== ops of {model}");
        let mut command = programs.check(settings.threads.get());
        command.args(["ops", "--model", model]);
        for (option, value) in [("--batch", batch), ("--threads", settings.threads.get())] {
            command.args([option, &value.to_string()]);
        }
        command.args(["--reps", &settings.rounds.get().to_string()]);
        match objects(&mut command).and_then(|lines| summarise(model, batch, &lines, &mut summary).map(|_| lines)) {
            Ok(lines) => {
                section.tables.push(op_table(model, batch, &lines)?);
                figures.push(json!({ "model": model, "batch": batch, "ops": lines }));
            }
            Err(error) => {
                section.num_failed += 1;
                summary.push([model, "not measured"]);
                summary.note(format!("{model}: {error:#}"));
                figures.push(json!({ "model": model, "error": format!("{error:#}") }));
            }
        }
    }
    section.tables.push(summary);
    section.figures = figures.into();
    Ok(section)
}

fn op_table(model: &str, batch: usize, lines: &[Value]) -> Result<Table> {
    let title =
        format!("Convolutions of {model}, batch {batch}; ms and share of the FMA peak beside it ({})", peaks(lines)?);
    let mut table = Table::new(title, &["input", "channels", "kernel", "count", "forward", "dX", "dW"]);
    for line in lines {
        let whole = |key: &str| number(line, key).map(|value| value as usize);
        let mut cells = vec![
            format!("{}×{}", whole("h")?, whole("w")?),
            format!("{} → {}", whole("c_in")?, whole("c_out")?),
            format!("{0}×{0} / {1}", whole("kernel")?, whole("stride")?),
            whole("count")?.to_string(),
        ];
        for pass in PASSES {
            cells.push(match line[pass].is_null() {
                true => "–".to_owned(),
                false => format!(
                    "{:.2} ms {:.2}",
                    number(line, &format!("{pass}.seconds"))? * 1e3,
                    number(line, &format!("{pass}.share_of_peak"))?
                ),
            });
        }
        table.push(cells);
    }
    Ok(table)
}

/// The lowest and the highest peak that an op had beside it.
fn peaks(lines: &[Value]) -> Result<String> {
    let (mut lowest, mut highest) = (f64::INFINITY, 0.0f64);
    for line in lines {
        for pass in PASSES.iter().filter(|pass| !line[**pass].is_null()) {
            let peak = number(line, &format!("{pass}.peak_gflops_per_second"))?;
            (lowest, highest) = (lowest.min(peak), highest.max(peak));
        }
    }
    Ok(format!("{lowest:.0} to {highest:.0} GFLOP/s"))
}

fn summary_table(settings: &Settings) -> Table {
    let title = format!(
        "Share of the FMA peak, direct-equivalent, over the time of each group, {} threads; must 2.0 and 0.7, goal 3.0 \
         and 0.9 for the two groups",
        settings.threads
    );
    Table::new(title, &["network", "3×3 stride 1, c ≥ 64: forward", "dX", "dW", "all others, all passes"])
}

/// Appends the shares of one network's two groups.
fn summarise(model: &str, batch: usize, lines: &[Value], summary: &mut Table) -> Result<()> {
    let (wide, others): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| is_wide_3x3(line));
    let mut cells = vec![format!("{model}, batch {batch}")];
    for pass in PASSES {
        cells.push(show(share(&wide, &[pass])?));
    }
    cells.push(show(share(&others, &PASSES)?));
    summary.push(cells);
    Ok(())
}

fn show(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{share:.2}"))
}

/// Those for which an algorithm with fewer multiplications pays: 3×3, stride 1, at least 64 channels.
fn is_wide_3x3(line: &Value) -> bool {
    let is = |key: &str, holds: fn(f64) -> bool| number(line, key).is_ok_and(holds);
    is("kernel", |kernel| kernel == 3.0)
        && is("stride", |stride| stride == 1.0)
        && is("c_in", |channels| channels >= 64.0)
        && is("c_out", |channels| channels >= 64.0)
}

/// All operations of these passes over what the peaks beside them would have done in their time: how a network spends
/// its time. `None` of no op.
fn share(lines: &[&Value], passes: &[&str]) -> Result<Option<f64>> {
    let (mut flops, mut at_peak) = (0.0, 0.0);
    for line in lines {
        for pass in passes.iter().filter(|pass| !line[**pass].is_null()) {
            let count = number(line, "count")?;
            let pass_flops = count * number(line, "flops")?;
            flops += pass_flops;
            at_peak += pass_flops / number(line, &format!("{pass}.share_of_peak"))?;
        }
    }
    Ok((at_peak > 0.0).then(|| flops / at_peak))
}

#[cfg(test)]
mod tests {
    use super::{is_wide_3x3, op_table, share};
    use serde_json::{Value, json};

    /// An op of 1 GFLOP on a machine that could do 10 in a second.
    fn op(count: usize, kernel: usize, stride: usize, c_in: usize, seconds: f64) -> Value {
        let pass = json!({ "seconds": seconds, "peak_gflops_per_second": 10.0, "share_of_peak": 0.1 / seconds });
        let input_gradient = if c_in == 3 { Value::Null } else { pass.clone() };
        json!({
            "count": count, "kernel": kernel, "stride": stride, "c_in": c_in, "c_out": 64, "h": 32, "w": 32,
            "flops": 1e9,
            "forward": pass, "input_gradient": input_gradient, "weight_gradient": pass,
        })
    }

    #[test]
    fn the_groups_are_told_apart() {
        assert!(is_wide_3x3(&op(1, 3, 1, 64, 1.0)));
        for other in [op(1, 3, 1, 3, 1.0), op(1, 3, 2, 64, 1.0), op(1, 1, 1, 64, 1.0), json!({})] {
            assert!(!is_wide_3x3(&other), "{other}");
        }
    }

    #[test]
    fn shares_are_weighted_by_time_and_count() {
        let ops = [op(3, 1, 1, 64, 0.1), op(1, 1, 1, 64, 0.7)];
        let ops: Vec<_> = ops.iter().collect();
        // 4 GFLOP in 1 s of 10 GFLOP/s.
        assert!((share(&ops, &["forward"]).unwrap().unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(share(&[], &["forward"]).unwrap(), None);
    }

    #[test]
    fn a_gradient_that_nobody_needs_is_not_shown() {
        let table = op_table("basenet", 8, &[op(1, 3, 1, 3, 0.2)]).unwrap().to_string();
        assert!(table.contains("| 3×3 / 1 | 1     | 200.00 ms 0.50 | –   | 200.00 ms 0.50 |"), "{table}");
        assert!(table.contains("10 to 10 GFLOP/s"), "{table}");
    }
}
