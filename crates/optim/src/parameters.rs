//! Which variables are trained, in which order, and with what decay and rate.

use candle_core::Var;
use candle_nn::VarMap;
use serde::{Deserialize, Serialize};

use crate::config::non_negative;
use crate::{OptimError, OptimizerConfig, Role, role};

/// One trained variable and how it is treated.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in the model.
    pub name: String,
    /// The variable.
    pub var: Var,
    /// Multiplies the schedule's learning rate.
    pub lr_scale: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// What holds for all parameters whose name starts with a prefix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRule {
    /// Whole leading parts of the name: `head` matches `head.fc1.weight`, not `header.weight`.
    pub prefix: String,
    /// Multiplies the learning rate; 0 freezes the group.
    pub lr_scale: f64,
}

impl GroupRule {
    fn matches(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// How parameters are grouped: decay by role, learning rate by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupRules {
    /// Decay of weight matrices and filters.
    pub weight_decay: f64,
    /// Decay of biases and normalisation scales.
    pub norm_decay: f64,
    /// Rates by name; the longest prefix that matches holds.
    pub groups: Vec<GroupRule>,
}

impl GroupRules {
    /// The decay and the rates that `config` asks for.
    pub fn new(config: &OptimizerConfig) -> Self {
        let (weight_decay, norm_decay) = config.weight_decay();
        Self { weight_decay, norm_decay, groups: config.groups().to_vec() }
    }

    fn lr_scale(&self, name: &str) -> f64 {
        let matching = self.groups.iter().filter(|rule| rule.matches(name));
        matching.max_by_key(|rule| rule.prefix.len()).map_or(1.0, |rule| rule.lr_scale)
    }
}

/// The trained variables of a model, in the order of their names.
///
/// A `VarMap` is a hash map: its order differs between processes. Everything that depends on an order (sums over all
/// gradients, saved state) goes through this set. Running statistics and frozen groups are left out.
#[derive(Clone, Debug)]
pub struct ParameterSet {
    parameters: Vec<Parameter>,
}

impl ParameterSet {
    /// Sorts and groups the variables of `vars`.
    ///
    /// # Errors
    /// A rule that matches nothing, a negative rate, or no parameter left to train.
    pub fn new(vars: &VarMap, rules: &GroupRules) -> Result<Self, OptimError> {
        let mut named: Vec<(String, Var)> = {
            let poisoned = |_| candle_core::Error::Msg("another thread panicked while it held the variables".into());
            let vars = vars.data().lock().map_err(poisoned)?;
            vars.iter().map(|(name, var)| (name.clone(), var.clone())).collect()
        };
        named.retain(|(name, var)| role(name, var.rank()) != Role::Buffer);
        named.sort_by(|a, b| a.0.cmp(&b.0));
        for rule in &rules.groups {
            non_negative("optim.groups.lr_scale", rule.lr_scale)?;
            if !named.iter().any(|(name, _)| rule.matches(name)) {
                return Err(OptimError::NoSuchGroup { prefix: rule.prefix.clone(), known: first_parts(&named) });
            }
        }
        let parameters: Vec<_> = named
            .into_iter()
            .map(|(name, var)| Parameter {
                lr_scale: rules.lr_scale(&name),
                weight_decay: if role(&name, var.rank()) == Role::Weight {
                    rules.weight_decay
                } else {
                    rules.norm_decay
                },
                name,
                var,
            })
            .filter(|parameter| parameter.lr_scale > 0.0)
            .collect();
        if parameters.is_empty() {
            return Err(OptimError::config("optim.groups", "all frozen", "nothing is left to train"));
        }
        Ok(Self { parameters })
    }

    /// The parameters in name order.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.parameters.iter()
    }

    /// How many tensors are trained.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Whether nothing is trained; never so for a set that [`ParameterSet::new`] made.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.parameters
            .binary_search_by(|parameter| parameter.name.as_str().cmp(name))
            .ok()
            .map(|at| &self.parameters[at])
    }

    /// How many values are trained.
    pub fn num_values(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.var.elem_count()).sum()
    }
}

fn first_parts(named: &[(String, Var)]) -> String {
    let mut parts: Vec<&str> = named.iter().filter_map(|(name, _)| name.split('.').next()).collect();
    parts.dedup();
    parts.join(", ")
}
