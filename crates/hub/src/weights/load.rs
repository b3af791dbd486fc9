//! Tensors into the variables of a model, with an account of what fitted.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::MutexGuard;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;

use super::WeightsError;
use super::error::shortened;

/// What the names of a head start with: a ResNet's, and the BaseNet's.
const HEADS: [&str; 2] = ["fc.", "head."];

/// A count of steps, which steers nothing.
const COUNTER: &str = ".num_batches_tracked";

/// What happens to a model's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It is loaded as everything else.
    Loaded,
    /// It keeps its initial values, and a head of the file is left aside.
    Replaced,
}

/// How the names and shapes of weights match a model's. Every list is sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors that fit and were copied.
    pub loaded: Vec<String>,
    /// The model's names that keep their initial values: exactly the head, if it is replaced.
    pub missing: Vec<String>,
    /// Names in the file that the model lacks; without the file's head, if that is replaced.
    pub unexpected: Vec<String>,
    /// Names whose shapes differ, with both shapes.
    pub reshaped: Vec<Reshaped>,
    /// Counts of steps that the file leaves out altogether, as those from before PyTorch 0.4.1 do; they stay at zero.
    pub uncounted: Vec<String>,
}

/// A name with two shapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reshaped {
    /// The parameter.
    pub name: String,
    /// Its shape in the file.
    pub in_file: Vec<usize>,
    /// Its shape in the model.
    pub in_model: Vec<usize>,
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tensors fit", self.loaded.len())?;
        let reshaped: Vec<String> = self
            .reshaped
            .iter()
            .map(|tensor| format!("{} {:?} instead of {:?}", tensor.name, tensor.in_file, tensor.in_model))
            .collect();
        let lists = [("missing", &self.missing), ("unexpected", &self.unexpected), ("of another shape", &reshaped)];
        for (what, names) in lists {
            if !names.is_empty() {
                write!(f, "; {} {what}: {}", names.len(), shortened(names))?;
            }
        }
        Ok(())
    }
}

/// Copies tensors into the variables of a model that has been built. All must fit: same names, same shapes; with
/// [`Head::Replaced`], all but the head. `path` is for the message.
///
/// # Errors
/// [`WeightsError::Misfit`] lists what does not fit; then no variable has changed.
pub fn load(
    tensors: &BTreeMap<String, Tensor>,
    vars: &VarMap,
    head: Head,
    path: &Path,
) -> Result<LoadReport, WeightsError> {
    let vars = lock(vars)?;
    let (report, fits) = compare(tensors, &vars, head);
    if !fits {
        return Err(WeightsError::Misfit { path: path.to_owned(), report: Box::new(report) });
    }
    for name in &report.loaded {
        if let (Some(var), Some(tensor)) = (vars.get(name), tensors.get(name)) {
            var.set(&tensor.to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
    }
    Ok(report)
}

/// What matches, and whether it is enough.
fn compare(tensors: &BTreeMap<String, Tensor>, vars: &HashMap<String, Var>, head: Head) -> (LoadReport, bool) {
    let is_replaced = |name: &str| head == Head::Replaced && is_head(name);
    let has_counters = tensors.keys().any(|name| name.ends_with(COUNTER));
    let mut report = LoadReport::default();
    let mut fits = true;
    for (name, var) in vars {
        match tensors.get(name) {
            _ if is_replaced(name) => report.missing.push(name.clone()),
            Some(tensor) if tensor.shape() == var.shape() => report.loaded.push(name.clone()),
            Some(tensor) => report.reshaped.push(Reshaped {
                name: name.clone(),
                in_file: tensor.dims().to_vec(),
                in_model: var.dims().to_vec(),
            }),
            None if name.ends_with(COUNTER) && !has_counters => report.uncounted.push(name.clone()),
            None => {
                fits = false;
                report.missing.push(name.clone());
            }
        }
    }
    let unexpected = tensors.keys().filter(|name| !vars.contains_key(*name) && !is_replaced(name));
    report.unexpected = unexpected.cloned().collect();
    for list in [&mut report.loaded, &mut report.missing, &mut report.uncounted] {
        list.sort();
    }
    report.reshaped.sort();
    fits &= report.unexpected.is_empty() && report.reshaped.is_empty();
    if !fits {
        // The message is about what is wrong, and the head is not.
        report.missing.retain(|name| !is_replaced(name));
    }
    (report, fits)
}

fn is_head(name: &str) -> bool {
    HEADS.iter().any(|head| name.starts_with(head))
}

fn lock(vars: &VarMap) -> Result<MutexGuard<'_, HashMap<String, Var>>, WeightsError> {
    let poisoned = |_| candle_core::Error::Msg("another thread panicked while it held the variables".into());
    Ok(vars.data().lock().map_err(poisoned)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    const MODEL: [(&str, &[usize]); 5] = [
        ("conv1.weight", &[4, 3, 3, 3]),
        ("bn1.weight", &[4]),
        ("bn1.num_batches_tracked", &[]),
        ("fc.weight", &[5, 4]),
        ("fc.bias", &[5]),
    ];

    fn tensors(shapes: &[(&str, &[usize])]) -> BTreeMap<String, Tensor> {
        let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
        shapes.iter().map(|(name, shape)| ((*name).to_owned(), ones(shape))).collect()
    }

    fn model() -> VarMap {
        let vars = VarMap::new();
        for (name, shape) in MODEL {
            let var = Var::zeros(shape, DType::F32, &Device::Cpu).unwrap();
            vars.data().lock().unwrap().insert(name.to_owned(), var);
        }
        vars
    }

    fn sum(vars: &VarMap) -> f32 {
        let all = vars.all_vars();
        all.iter().map(|var| var.sum_all().unwrap().to_scalar::<f32>().unwrap()).sum()
    }

    /// The model's tensors but one, which has another shape, or is absent if that is empty.
    fn with(changed: &str, shape: &'static [usize]) -> BTreeMap<String, Tensor> {
        let mut shapes: Vec<(&str, &[usize])> = MODEL.into_iter().filter(|(name, _)| *name != changed).collect();
        if !shape.is_empty() {
            shapes.push((changed, shape));
        }
        tensors(&shapes)
    }

    #[test]
    fn weights_that_fit_are_loaded() {
        let file = Path::new("f");
        let cases = [
            (tensors(&MODEL), Head::Loaded, [5, 0, 0], 4.0 * 27.0 + 4.0 + 1.0 + 25.0),
            (tensors(&MODEL), Head::Replaced, [3, 2, 0], 4.0 * 27.0 + 4.0 + 1.0),
            (with("fc.weight", &[1000, 4]), Head::Replaced, [3, 2, 0], 4.0 * 27.0 + 4.0 + 1.0),
            (tensors(&MODEL[..3]), Head::Replaced, [3, 2, 0], 4.0 * 27.0 + 4.0 + 1.0),
            (with("bn1.num_batches_tracked", &[]), Head::Loaded, [4, 0, 1], 4.0 * 27.0 + 4.0 + 25.0),
        ];
        for (tensors, head, counts, expected) in cases {
            let vars = model();
            let report = load(&tensors, &vars, head, file).unwrap();
            assert_eq!([report.loaded.len(), report.missing.len(), report.uncounted.len()], counts, "{report:?}");
            assert!(report.missing.iter().all(|name| is_head(name)), "{report:?}");
            assert_eq!(sum(&vars), expected);
        }
    }

    #[test]
    fn misfits_list_names_and_change_nothing() {
        let mut more = tensors(&MODEL);
        more.extend(tensors(&[("layer5.0.conv1.weight", &[1])]));
        let many: Vec<String> = (0..12).map(|index| format!("x{index:02}.weight")).collect();
        let many: Vec<(&str, &[usize])> = many.iter().map(|name| (name.as_str(), &[1][..])).collect();
        let mut much_more = tensors(&MODEL);
        much_more.extend(tensors(&many));
        let cases = [
            (with("conv1.weight", &[]), Head::Replaced, "1 missing: conv1.weight"),
            (with("bn1.weight", &[5]), Head::Loaded, "1 of another shape: bn1.weight [5] instead of [4]"),
            (with("fc.weight", &[7, 4]), Head::Loaded, "fc.weight [7, 4] instead of [5, 4]"),
            (with("fc.bias", &[]), Head::Loaded, "1 missing: fc.bias"),
            (more, Head::Replaced, "1 unexpected: layer5.0.conv1.weight"),
            (
                much_more,
                Head::Loaded,
                "12 unexpected: x00.weight, x01.weight, x02.weight, x03.weight, x04.weight, x05.weight, x06.weight, x07.weight, x08.weight, x09.weight, …",
            ),
        ];
        for (tensors, head, words) in cases {
            let vars = model();
            let message = load(&tensors, &vars, head, Path::new("f.pth")).unwrap_err().to_string();
            assert!(message.contains(words) && message.starts_with("f.pth"), "{message}");
            assert_eq!(sum(&vars), 0.0);
        }
    }
}
