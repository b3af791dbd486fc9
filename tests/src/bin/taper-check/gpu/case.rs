use anyhow::{Context as _, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use taper_kernels::backward_with;

use super::noise::Noise;
use super::report::Check;

/// What an input of an op is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Of the type that is checked.
    Activation,
    /// The same, but nobody asks for its gradient.
    Image,
    /// Always f32.
    Parameter,
}

type Op = Box<dyn Fn(&[Tensor]) -> candle_core::Result<Tensor>>;

/// An op with inputs on the CPU; the same closure runs on both devices.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) inputs: Vec<(Role, Tensor)>,
    pub(super) op: Op,
}

/// A result and the gradient of each input, in f32 on the CPU.
struct Outcome {
    result: Tensor,
    gradients: Vec<Tensor>,
}

/// Largest error that is put down to rounding, as root mean square over that of the expected values: of the result, and
/// of gradients. bf16 has eight bits of mantissa; sums are in f32 on both sides, in different orders.
fn tolerances(dtype: DType) -> [f64; 2] {
    if dtype == DType::BF16 { [4e-3, 8e-3] } else { [2e-6, 1e-5] }
}

impl Case {
    /// Runs the op and its backward pass on both devices.
    pub(super) fn run(&self, device: &Device, dtype: DType, noise: &mut Noise) -> Check {
        let name = format!("{} {}", self.name, dtype.as_str());
        match self.compare(device, dtype, noise) {
            Ok(errors) => Check::of(name, errors),
            Err(error) => Check::failed(name, &format!("{error:#}")),
        }
    }

    /// Error and tolerance of the result and of each gradient.
    fn compare(&self, device: &Device, dtype: DType, noise: &mut Noise) -> Result<Vec<(String, f64, f64)>> {
        let weights = noise.tensor((self.op)(&self.placed(&Device::Cpu, DType::F32)?)?.dims())?;
        // Both sides start from the same numbers: those that the checked type can hold.
        let (inputs, weights) = (self.rounded(dtype)?, rounded(&weights, dtype)?);
        let expected = self.outcome(&inputs, &weights, &Device::Cpu, DType::F32).context("on the CPU")?;
        let found = self.outcome(&inputs, &weights, device, dtype)?;
        let again = self.outcome(&inputs, &weights, device, dtype)?;
        ensure!(same_bits(&found, &again)?, "two runs differ");
        let [forward, backward] = tolerances(dtype);
        let mut errors = vec![("result".to_owned(), error(&found.result, &expected.result)?, forward)];
        for (index, (found, expected)) in found.gradients.iter().zip(&expected.gradients).enumerate() {
            errors.push((format!("gradient {index}"), error(found, expected)?, backward));
        }
        Ok(errors)
    }

    fn rounded(&self, dtype: DType) -> Result<Vec<Tensor>> {
        let round = |(role, tensor): &(Role, Tensor)| match role {
            Role::Activation | Role::Image => rounded(tensor, dtype),
            Role::Parameter => Ok(tensor.clone()),
        };
        self.inputs.iter().map(round).collect()
    }

    fn placed(&self, device: &Device, dtype: DType) -> Result<Vec<Tensor>> {
        let place = |(role, tensor): &(Role, Tensor)| self::placed(tensor, *role, device, dtype);
        self.inputs.iter().map(place).collect()
    }

    fn outcome(&self, inputs: &[Tensor], weights: &Tensor, device: &Device, dtype: DType) -> Result<Outcome> {
        let var = |(tensor, (role, _)): (&Tensor, &(Role, Tensor))| {
            Ok(Var::from_tensor(&placed(tensor, *role, device, dtype)?)?)
        };
        let vars: Result<Vec<Var>> = inputs.iter().zip(&self.inputs).map(var).collect();
        let vars = vars?;
        let input = |(var, (role, _)): (&Var, &(Role, Tensor))| match role {
            Role::Image => var.as_detached_tensor(),
            Role::Activation | Role::Parameter => var.as_tensor().clone(),
        };
        let y = (self.op)(&vars.iter().zip(&self.inputs).map(input).collect::<Vec<_>>())?;
        let result = home(&y)?;
        // The loss is f32 whatever the logits are.
        let gradient = weights.to_dtype(y.dtype())?.to_device(device)?;
        let store = backward_with(y, gradient)?;
        let gradient = |var: &Var| home(store.get(var).context("an input has no gradient")?);
        let asked = vars.iter().zip(&self.inputs).filter(|(_, (role, _))| *role != Role::Image).map(|(var, _)| var);
        Ok(Outcome { result, gradients: asked.map(gradient).collect::<Result<_>>()? })
    }
}

fn placed(tensor: &Tensor, role: Role, device: &Device, dtype: DType) -> Result<Tensor> {
    let dtype = if role == Role::Parameter { DType::F32 } else { dtype };
    Ok(tensor.to_dtype(dtype)?.to_device(device)?)
}

/// The values that `dtype` can hold, in f32.
fn rounded(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    Ok(tensor.to_dtype(dtype)?.to_dtype(DType::F32)?)
}

/// In f32 on the CPU.
pub(super) fn home(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.detach().contiguous()?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)
}

/// Root mean square of the difference over that of the expected values; infinite where a value is none.
pub(super) fn error(found: &Tensor, expected: &Tensor) -> Result<f64> {
    ensure!(found.dims() == expected.dims(), "the shape is {:?}, expected {:?}", found.dims(), expected.dims());
    let (found, expected) = (values(found)?, values(expected)?);
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let pairs = found.iter().zip(&expected);
    let off = square(&mut pairs.map(|(found, expected)| f64::from(*found) - f64::from(*expected)));
    let size = square(&mut expected.iter().map(|&value| f64::from(value)));
    let error = (off / size.max(f64::MIN_POSITIVE)).sqrt();
    Ok(if error.is_nan() { f64::INFINITY } else { error })
}

fn same_bits(left: &Outcome, right: &Outcome) -> Result<bool> {
    let pairs = left.gradients.iter().zip(&right.gradients).chain([(&left.result, &right.result)]);
    for (left, right) in pairs {
        let bits = |tensor| Ok::<_, anyhow::Error>(values(tensor)?.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        if bits(left)? != bits(right)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}
