//! Initial values that depend on a seed and the parameter's name, and on nothing else.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
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
/// Only constant and uniform initialisations are drawn; the layers of this crate ask for no other.
pub fn seeded(vars: &VarMap, seed: u64, device: &Device) -> VarBuilder<'static> {
    let backend: Box<dyn SimpleBackend> = Box::new(SeededVars { vars: vars.clone(), seed });
    VarBuilder::from_backend(backend, DType::F32, device.clone())
}

struct SeededVars {
    vars: VarMap,
    seed: u64,
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
    match init {
        Init::Const(value) => Tensor::full(value, shape, device)?.to_dtype(dtype),
        Init::Uniform { lo, up } => {
            let values = uniform(shape.elem_count(), lo, up, &mut generator(seed, name));
            Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
        }
        other => {
            candle_core::bail!("{name}: initialisation {other:?} has no seeded form; use a constant or a uniform one")
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, name: &str) -> Vec<f32> {
        let vars = VarMap::new();
        let vb = seeded(&vars, seed, &Device::Cpu);
        let init = Init::Uniform { lo: -0.5, up: 0.5 };
        vb.get_with_hints(1000, name, init).unwrap().to_vec1().unwrap()
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
    fn existing_variable_is_kept_and_its_shape_checked() {
        let vars = VarMap::new();
        vars.data().lock().unwrap().insert("w".into(), Var::ones(3, DType::F32, &Device::Cpu).unwrap());
        let vb = seeded(&vars, 0, &Device::Cpu);
        assert_eq!(vb.get(3, "w").unwrap().to_vec1::<f32>().unwrap(), [1.0; 3]);
        assert!(vb.get(4, "w").unwrap_err().to_string().contains("w has shape"));
    }
}
