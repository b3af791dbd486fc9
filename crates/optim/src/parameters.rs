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
    /// Multiplies the learning rate; 0 leaves the parameters as they are, though not the running statistics beside them.
    pub lr_scale: f64,
}

impl GroupRule {
    fn matches(&self, name: &str) -> bool {
        is_below(&self.prefix, name)
    }
}

fn is_below(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
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
    /// Rates by depth, which hold where none of `groups` does.
    pub depths: Vec<GroupRule>,
    /// Prefixes of the parameters that are not trained, whatever their rate.
    pub frozen: Vec<String>,
}

impl GroupRules {
    /// The decay and the rates that `config` asks for.
    pub fn new(config: &OptimizerConfig) -> Self {
        let (weight_decay, norm_decay) = config.weight_decay();
        Self { weight_decay, norm_decay, groups: config.groups().to_vec(), ..Self::default() }
    }

    /// As [`GroupRules::new`], with rates by depth. `layers` holds the prefixes of each layer from the image to the
    /// logits, the last one the head's, whose rate is the schedule's.
    ///
    /// The rate of a layer is that of the one behind it times `layer_decay` (Clark et al. 2020, §3.2; timm's
    /// `layer_decay`), and `backbone_lr_scale` multiplies those of all layers but the head.
    ///
    /// ```
    /// use taper_optim::{GroupRules, OptimizerConfig, SgdConfig};
    /// let config = SgdConfig { layer_decay: 0.5, backbone_lr_scale: 0.1, ..SgdConfig::default() };
    /// let layers = ["stem", "block", "head"].map(|prefix| vec![prefix.to_owned()]);
    /// let rules = GroupRules::by_depth(&OptimizerConfig::Sgd(config), &layers);
    /// assert_eq!([0, 1, 2].map(|at| rules.depths[at].lr_scale), [0.025, 0.05, 1.0]);
    /// ```
    pub fn by_depth(config: &OptimizerConfig, layers: &[Vec<String>]) -> Self {
        let rule = |(depth, prefixes): (usize, &Vec<String>)| -> Vec<GroupRule> {
            let behind = layers.len() - 1 - depth;
            let of_backbone = if behind == 0 { 1.0 } else { config.backbone_lr_scale() };
            let lr_scale = of_backbone * config.layer_decay().powf(behind as f64);
            prefixes.iter().map(|prefix| GroupRule { prefix: prefix.clone(), lr_scale }).collect()
        };
        Self { depths: layers.iter().enumerate().flat_map(rule).collect(), ..Self::new(config) }
    }

    fn lr_scale(&self, name: &str) -> f64 {
        if self.is_frozen(name) {
            return 0.0;
        }
        let longest = |rules: &[GroupRule]| {
            let matching = rules.iter().filter(|rule| rule.matches(name));
            matching.max_by_key(|rule| rule.prefix.len()).map(|rule| rule.lr_scale)
        };
        longest(&self.groups).or_else(|| longest(&self.depths)).unwrap_or(1.0)
    }

    fn is_frozen(&self, name: &str) -> bool {
        self.frozen.iter().any(|prefix| is_below(prefix, name))
    }

    /// Finds a group that no trained parameter belongs to.
    fn check(&self, named: &[(String, Var)]) -> Result<(), OptimError> {
        for rule in &self.groups {
            non_negative("optim.groups.lr_scale", rule.lr_scale)?;
            let mut matching = named.iter().map(|(name, _)| name).filter(|name| rule.matches(name)).peekable();
            if matching.peek().is_none() {
                return Err(OptimError::NoSuchGroup { prefix: rule.prefix.clone(), known: first_parts(named) });
            }
            if matching.all(|name| self.is_frozen(name)) {
                let reason = "all parameters of this group are frozen; leave it out, or freeze less";
                return Err(OptimError::config("optim.groups", &rule.prefix, reason));
            }
        }
        Ok(())
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
        rules.check(&named)?;
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
