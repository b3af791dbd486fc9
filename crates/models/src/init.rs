//! Initial values that depend on a seed and the parameter's name, and on nothing else.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A `VarBuilder` that creates its variables in `vars`, drawn by a counter-based generator keyed by (`seed`, name).
///
/// candle's own builder draws from a generator that cannot be seeded on the CPU. Here the order in which layers ask
/// does not matter: adding a layer leaves the others' values as they were. A variable that exists already (loaded
/// weights) is handed out unchanged.
///
/// Every initialisation of candle is drawn, its normal ones by Box and Muller's method.
pub fn seeded(vars: &VarMap, seed: u64, device: &Device) -> VarBuilder<'static> {
    seeded_frozen(vars, seed, device, Vec::new())
}

/// As [`seeded`], with the parameters frozen whose names start with one of the prefixes `frozen`, in whole parts:
/// `layer1` is before `layer1.0.conv1.weight`, not before `layer10`.
///
/// A frozen parameter is a variable of `vars` as any other, and changes with it; a layer gets its values without the
/// mark of a variable. So it has no part in any graph, nothing before the first trained layer is differentiated, and
/// a [`BatchNorm`](crate::BatchNorm) of frozen parameters keeps its running statistics.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{ModuleT, VarMap};
/// use taper_models::{ModelConfig, seeded_frozen};
///
/// let (vars, config) = (VarMap::new(), ModelConfig::by_name("resnet18").unwrap());
/// let frozen = config.layers().frozen(&"backbone".parse()?)?;
/// let network = config.build(2, seeded_frozen(&vars, 0, &Device::Cpu, frozen))?;
/// let images = Tensor::zeros((2, 32, 32, 3), DType::F32, &Device::Cpu)?;
/// let gradients = network.forward_t(&images, true)?.backward()?;
/// let vars = vars.data().lock().unwrap();
/// assert!(gradients.get(&vars["fc.weight"]).is_some());
/// assert!(gradients.get(&vars["layer4.1.conv2.weight"]).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn seeded_frozen(vars: &VarMap, seed: u64, device: &Device, frozen: Vec<String>) -> VarBuilder<'static> {
    let backend: Box<dyn SimpleBackend> = Box::new(SeededVars { vars: vars.clone(), seed, frozen });
    VarBuilder::from_backend(backend, DType::F32, device.clone())
}

struct SeededVars {
    vars: VarMap,
    seed: u64,
    frozen: Vec<String>,
}

impl SeededVars {
    fn is_frozen(&self, name: &str) -> bool {
        let starts = |prefix: &String| name.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('.'));
        self.frozen.iter().any(starts)
    }
}

impl SimpleBackend for SeededVars {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        if !self.contains_tensor(name) {
            let var = Var::from_tensor(&initial(&shape, name, init, dtype, device, self.seed)?)?;
            lock(&self.vars)?.insert(name.to_owned(), var);
        }
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            candle_core::bail!("{name} has shape {:?}, the model needs {shape:?}", tensor.shape());
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> Result<Tensor> {
        match lock(&self.vars)?.get(name) {
            // Both share the variable's memory.
            Some(var) if var.dtype() == dtype && self.is_frozen(name) => Ok(var.as_detached_tensor()),
            Some(var) if var.dtype() == dtype => Ok(var.as_tensor().clone()),
            Some(var) => candle_core::bail!("{name} has type {:?}, the model needs {dtype:?}", var.dtype()),
            None => candle_core::bail!("no variable {name}"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        lock(&self.vars).is_ok_and(|vars| vars.contains_key(name))
    }
}

type Vars<'a> = std::sync::MutexGuard<'a, std::collections::HashMap<String, Var>>;

fn lock(vars: &VarMap) -> Result<Vars<'_>> {
    vars.data()
        .lock()
        .map_err(|_| candle_core::Error::Msg("another thread panicked while it held the variables".into()))
}

fn initial(shape: &Shape, name: &str, init: Init, dtype: DType, device: &Device, seed: u64) -> Result<Tensor> {
    let (count, rng) = (shape.elem_count(), &mut generator(seed, name));
    let values = match init {
        Init::Const(value) => return placed(Tensor::full(value, shape, &Device::Cpu)?.to_dtype(dtype)?, device),
        Init::Uniform { lo, up } => uniform(count, lo, up, rng),
        Init::Randn { mean, stdev } => normal(count, mean, stdev, rng),
        Init::Kaiming { dist, fan, non_linearity } => {
            let stdev = non_linearity.gain() / (fan.for_shape(shape).max(1) as f64).sqrt();
            // A uniform distribution is √3 of its standard deviation wide, to each side.
            let bound = 3f64.sqrt() * stdev;
            match dist {
                NormalOrUniform::Normal => normal(count, 0.0, stdev, rng),
                NormalOrUniform::Uniform => uniform(count, -bound, bound, rng),
            }
        }
    };
    placed(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?, device)
}

/// Counters stay on the CPU: no kernel reads them, and adding one there waits for nothing.
fn placed(tensor: Tensor, device: &Device) -> Result<Tensor> {
    if tensor.dtype().is_int() { Ok(tensor) } else { tensor.to_device(device) }
}

/// ChaCha8 keyed by (seed, purpose, hash of the name): a stream of its own for every parameter.
fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    // "init" in ASCII, so that no other purpose with the same seed shares the stream.
    const PURPOSE: u64 = 0x696e_6974;
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, PURPOSE, fnv1a(name), name.len() as u64]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// FNV-1a, 64 bit (Fowler, Noll, Vo; offset basis and prime as in RFC 9923): stable across processes and versions,
/// which the standard library's hasher does not promise.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn uniform(count: usize, lo: f64, up: f64, rng: &mut impl Rng) -> Vec<f32> {
    // 24 bits fill an f32's significand: every value in 0..1 is exact.
    const STEP: f64 = 1.0 / (1 << 24) as f64;
    (0..count).map(|_| (lo + (up - lo) * f64::from(rng.next_u32() >> 8) * STEP) as f32).collect()
}

/// Independent normal values, two from two uniform ones (Box and Muller 1958), in f64.
fn normal(count: usize, mean: f64, stdev: f64, rng: &mut impl Rng) -> Vec<f32> {
    const STEP: f64 = 1.0 / (1u64 << 53) as f64;
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // Above 0, where the logarithm ends, and up to 1.
        let radius_uniform = ((rng.next_u64() >> 11) + 1) as f64 * STEP;
        let angle = std::f64::consts::TAU * ((rng.next_u64() >> 11) as f64 * STEP);
        let radius = stdev * (-2.0 * radius_uniform.ln()).sqrt();
        values.extend([angle.cos(), angle.sin()].map(|axis| (mean + radius * axis) as f32));
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use candle_nn::init::{FanInOut, NonLinearity};

    use super::*;

    const UNIFORM: Init = Init::Uniform { lo: -0.5, up: 0.5 };

    fn draw_as(init: Init, shape: impl Into<Shape>, seed: u64, name: &str) -> Vec<f32> {
        let vb = seeded(&VarMap::new(), seed, &Device::Cpu);
        vb.get_with_hints(shape, name, init).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn draw(seed: u64, name: &str) -> Vec<f32> {
        draw_as(UNIFORM, 1000, seed, name)
    }

    /// Mean of `f` over the values.
    fn mean(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
        values.iter().map(|value| f(f64::from(*value))).sum::<f64>() / values.len() as f64
    }

    #[test]
    fn values_depend_on_seed_and_name_alone() {
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }

    #[test]
    fn uniform_fills_its_range() {
        let values = draw(7, "w");
        assert!(values.iter().all(|value| (-0.5..0.5).contains(value)));
        assert!(values.iter().any(|value| *value < -0.49) && values.iter().any(|value| *value > 0.49));
        let mean = values.iter().sum::<f32>() / 1000.0;
        // Standard deviation of the mean: 0.2887 / sqrt(1000) = 0.009; four of them.
        assert!(mean.abs() < 0.037, "{mean}");
    }

    #[test]
    fn normal_values_have_the_moments_and_the_tails_of_the_distribution() {
        let values = draw_as(Init::Randn { mean: 0.0, stdev: 1.0 }, 100_000, 7, "w");
        // Expected value, and variance of the quantity itself; five standard deviations of the mean are allowed.
        let check = |what: &str, found: f64, expected: f64, variance: f64| {
            let allowed = 5.0 * (variance / values.len() as f64).sqrt();
            assert!((found - expected).abs() < allowed, "{what}: {found}, expected {expected} within {allowed}");
        };
        for (power, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            check("moment", mean(&values, |value| value.powi(power)), expected, variance);
        }
        // Φ(x), from the table of the normal distribution.
        for (x, below) in [(-2.0, 0.0227501), (-1.0, 0.1586553), (0.0, 0.5), (0.5, 0.6914625), (3.0, 0.9986501)] {
            let found = mean(&values, |value| f64::from(u8::from(value < x)));
            check("share below", found, below, below * (1.0 - below));
        }
        // The two values of a pair, and those of neighbouring pairs, have nothing to do with each other.
        for distance in [1, 2] {
            let products: Vec<f32> = values.iter().zip(&values[distance..]).map(|(a, b)| a * b).collect();
            check("correlation", mean(&products, |value| value), 0.0, 1.0);
        }
    }

    #[test]
    fn normal_values_are_scaled_and_shifted_and_depend_on_seed_and_name_alone() {
        let draw = |stdev, seed, name| draw_as(Init::Randn { mean: 3.0, stdev }, 7, seed, name);
        assert_eq!(draw(0.0, 1, "a"), [3.0; 7]);
        assert_eq!(draw(1.0, 1, "a"), draw(1.0, 1, "a"));
        assert_ne!(draw(1.0, 1, "a"), draw(1.0, 2, "a"));
        assert_ne!(draw(1.0, 1, "a"), draw(1.0, 1, "b"));
        for (one, two) in draw(1.0, 1, "a").iter().zip(draw(2.0, 1, "a")) {
            assert!((2.0 * (one - 3.0) - (two - 3.0)).abs() < 1e-5, "{one} and {two}");
        }
    }

    #[test]
    fn kaiming_follows_the_fan_and_the_distribution() {
        for (fan, expected) in [(FanInOut::FanIn, 2.0 / (16.0 * 9.0)), (FanInOut::FanOut, 2.0 / (64.0 * 9.0))] {
            for (dist, widest) in [(NormalOrUniform::Normal, 8.6), (NormalOrUniform::Uniform, 3f64.sqrt() * 1.001)] {
                let init = Init::Kaiming { dist, fan, non_linearity: NonLinearity::ReLU };
                let values = draw_as(init, (64, 16, 3, 3), 3, "w");
                let variance = mean(&values, |value| value * value);
                // 9216 values; the relative deviation of their variance is at most √(2/9216) = 1.5 %.
                assert!((variance / expected - 1.0).abs() < 0.06, "{init:?}: {variance}, expected {expected}");
                let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(f64::from(value.abs())));
                let largest = largest / f64::sqrt(expected);
                assert!(largest < widest && largest > 1.7, "{init:?}: {largest} standard deviations");
            }
        }
    }

    #[test]
    fn existing_variable_is_kept_and_its_shape_checked() {
        let vars = VarMap::new();
        vars.data().lock().unwrap().insert("w".into(), Var::ones(3, DType::F32, &Device::Cpu).unwrap());
        let vb = seeded(&vars, 0, &Device::Cpu);
        assert_eq!(vb.get(3, "w").unwrap().to_vec1::<f32>().unwrap(), [1.0; 3]);
        assert!(vb.get(4, "w").unwrap_err().to_string().contains("w has shape"));
    }
}
