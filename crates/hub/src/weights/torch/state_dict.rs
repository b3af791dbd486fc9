//! A state dict as a pickle describes it: names, shapes, and where the numbers lie.

use std::collections::{BTreeMap, BTreeSet};

use taper_data::pickle::{Id, Limits, Pickle, Value};

use crate::weights::raw::{MAX_AXES, NumberType, Place};

/// What a pickle of weights may name: tensors, their storages, and Python's ordered dict.
pub(super) const LIMITS: Limits = Limits { max_values: 1_000_000, may_name };

/// Keys below which training scripts put the state dict.
const NESTED: [&str; 2] = ["state_dict", "model"];

fn may_name(module: &[u8], name: &[u8]) -> bool {
    match module {
        b"collections" => name == b"OrderedDict",
        b"torch._utils" => matches!(name, b"_rebuild_tensor_v2" | b"_rebuild_tensor" | b"_rebuild_parameter"),
        // Storages of types that are not read have an error of their own.
        b"torch" => name.ends_with(b"Storage"),
        _ => false,
    }
}

/// Tensors by the key of the storage that they lie in, each with its name.
#[derive(Debug)]
pub(super) struct StateDict {
    pub(super) by_storage: BTreeMap<String, Vec<(String, Place)>>,
}

impl StateDict {
    /// Finds the tensors of a pickle.
    pub(super) fn of(pickle: &Pickle<'_>) -> Result<Self, String> {
        let mut by_storage: BTreeMap<String, Vec<(String, Place)>> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for (key, value) in find(pickle)? {
            let name = text(pickle, key).ok_or("a key of the state dict is no text")?;
            if !names.insert(name.to_owned()) {
                return Err(format!("two tensors have the name {name:?}"));
            }
            let (storage, place) = tensor(pickle, value).map_err(|reason| format!("entry {name:?}: {reason}"))?;
            by_storage.entry(storage).or_default().push((name.to_owned(), place));
        }
        Ok(Self { by_storage })
    }
}

/// Keys and values of the dict that has tensors: the outermost one, or one nested in it.
fn find(pickle: &Pickle<'_>) -> Result<Vec<(Id, Id)>, String> {
    let mut place = pickle.root();
    for _ in 0..=NESTED.len() {
        let pairs = pairs(pickle, place).ok_or("it holds no state dict; save model.state_dict(), not the model")?;
        if pairs.iter().any(|(_, value)| is_tensor(pickle, *value)) {
            return Ok(pairs);
        }
        let entry = |key: &str| pairs.iter().find(|(id, _)| text(pickle, *id) == Some(key)).map(|(_, value)| *value);
        let Some(nested) = NESTED.into_iter().find_map(entry) else {
            let keys: Vec<&str> = pairs.iter().filter_map(|(key, _)| text(pickle, *key)).take(10).collect();
            return Err(format!(
                "it holds no tensors, nor a state dict under {:?} or {:?}; its keys are {keys:?}",
                NESTED[0], NESTED[1]
            ));
        };
        place = nested;
    }
    Err("its state dict is nested too deep".to_owned())
}

/// Keys and values of a dict or an ordered dict. Python 2 gives the latter its pairs as lists in the call.
fn pairs(pickle: &Pickle<'_>, id: Id) -> Option<Vec<(Id, Id)>> {
    let (arguments, items) = match pickle.value(id) {
        Value::Dict(pairs) => return Some(pairs.clone()),
        Value::Call { callable, arguments, items, .. } if names(pickle, *callable, "OrderedDict") => {
            (pickle.items(*arguments), items)
        }
        _ => return None,
    };
    let listed = arguments.first().map_or(&[][..], |list| pickle.items(*list));
    let pair = |id: &Id| match pickle.items(*id) {
        [key, value] => Some((*key, *value)),
        _ => None,
    };
    listed.iter().map(pair).chain(items.iter().map(|pair| Some(*pair))).collect()
}

fn is_tensor(pickle: &Pickle<'_>, id: Id) -> bool {
    call(pickle, id).is_some_and(|(name, _)| name.starts_with("_rebuild_"))
}

/// What a call of one of PyTorch's functions would make: the storage's key, and the place in it.
fn tensor(pickle: &Pickle<'_>, id: Id) -> Result<(String, Place), String> {
    let mut id = id;
    if let Some(("_rebuild_parameter", [data, ..])) = call(pickle, id) {
        id = *data;
    }
    let (name, arguments) = call(pickle, id).ok_or("not a tensor")?;
    if !matches!(name, "_rebuild_tensor_v2" | "_rebuild_tensor") {
        return Err(format!("{name} in place of a tensor"));
    }
    let [storage, offset, shape, strides, ..] = arguments else {
        return Err(format!("{} arguments of {name}", arguments.len()));
    };
    let Value::Persistent(storage) = pickle.value(*storage) else {
        return Err("a tensor without a storage".to_owned());
    };
    let (key, number) = storage_of(pickle, *storage)?;
    let sizes = |id: Id| match pickle.items(id) {
        items if items.len() > MAX_AXES => Err(format!("{} axes, more than {MAX_AXES}", items.len())),
        items => items.iter().map(|item| size(pickle, *item)).collect::<Result<Vec<_>, _>>(),
    };
    let place = Place { number, shape: sizes(*shape)?, strides: sizes(*strides)?, offset: size(pickle, *offset)? };
    Ok((key, place))
}

/// Key and number type of a storage: `("storage", torch.FloatStorage, key, device, length[, view])`.
pub(super) fn storage_of(pickle: &Pickle<'_>, id: Id) -> Result<(String, NumberType), String> {
    let [kind, class, key, _, _, rest @ ..] = pickle.items(id) else {
        return Err("a persistent name that is no storage".to_owned());
    };
    if text(pickle, *kind) != Some("storage") {
        return Err("a persistent name that is no storage".to_owned());
    }
    if rest.first().is_some_and(|view| !matches!(pickle.value(*view), Value::Other)) {
        return Err("a storage that views another, as PyTorch before 0.4 wrote; save it again".to_owned());
    }
    let key = text(pickle, *key).ok_or("a storage whose key is no text")?;
    let class = global(pickle, *class).ok_or("a storage without a type")?;
    Ok((key.to_owned(), number_type(class)?))
}

fn number_type(class: &str) -> Result<NumberType, String> {
    Ok(match class {
        "FloatStorage" => NumberType::F32,
        "DoubleStorage" => NumberType::F64,
        "HalfStorage" => NumberType::F16,
        "BFloat16Storage" => NumberType::BF16,
        "LongStorage" => NumberType::I64,
        "IntStorage" => NumberType::I32,
        "ShortStorage" => NumberType::I16,
        "ByteStorage" | "BoolStorage" => NumberType::U8,
        other => return Err(format!("numbers of torch.{other} are not read; convert the tensor with .float()")),
    })
}

/// Name and arguments of a call. The module is known: [`may_name`] lets each name come from one alone.
fn call<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<(&'p str, &'p [Id])> {
    let Value::Call { callable, arguments, .. } = pickle.value(id) else { return None };
    Some((global(pickle, *callable)?, pickle.items(*arguments)))
}

fn names(pickle: &Pickle<'_>, id: Id, name: &str) -> bool {
    global(pickle, id) == Some(name)
}

fn global<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<&'p str> {
    let Value::Global(_, name) = pickle.value(id) else { return None };
    std::str::from_utf8(name).ok()
}

/// A text of Python 3, or an ASCII one of Python 2.
pub(super) fn text<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<&'p str> {
    match pickle.value(id) {
        Value::Text(text) => Some(text),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn size(pickle: &Pickle<'_>, id: Id) -> Result<usize, String> {
    match pickle.value(id) {
        Value::Int(size) => usize::try_from(*size).map_err(|_| format!("a size of {size}")),
        _ => Err("a size that is no integer".to_owned()),
    }
}
