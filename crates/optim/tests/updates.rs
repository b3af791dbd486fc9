//! Groups, gradients, optimizers and the moving average over real variables.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use taper_optim::{
    AdamWConfig, Ema, Gradients, GroupRule, GroupRules, Optimizer, OptimizerConfig, ParameterSet, SgdConfig,
};

fn vars(named: &[(&str, &[f32])]) -> VarMap {
    let vars = VarMap::new();
    for (name, values) in named {
        // Names that end in `weight` are matrices, as a network's are.
        let tensor = Tensor::new(*values, &Device::Cpu).unwrap();
        let tensor = if name.ends_with("fc.weight") { tensor.unsqueeze(0).unwrap() } else { tensor };
        vars.data().lock().unwrap().insert((*name).into(), Var::from_tensor(&tensor).unwrap());
    }
    vars
}

fn net() -> VarMap {
    vars(&[
        ("head.fc.weight", &[1.0, 2.0]),
        ("head.fc.bias", &[0.5]),
        ("bn.weight", &[1.0]),
        ("bn.running_mean", &[0.0]),
        ("bn.running_var", &[1.0]),
    ])
}

fn values(parameters: &ParameterSet, name: &str) -> Vec<f32> {
    parameters.get(name).unwrap().var.flatten_all().unwrap().to_vec1().unwrap()
}

/// Gradients of half the sum of squares: each equals its parameter.
fn gradients(parameters: &ParameterSet) -> Gradients {
    gradients_times(parameters, 1.0)
}

fn gradients_times(parameters: &ParameterSet, factor: f64) -> Gradients {
    let square = |var: &Var| (var.sqr().unwrap().sum_all().unwrap() * (0.5 * factor)).unwrap();
    let loss = parameters.iter().map(|parameter| square(&parameter.var)).reduce(|a, b| (a + b).unwrap()).unwrap();
    Gradients::take(parameters, &loss.backward().unwrap()).unwrap()
}

#[test]
fn parameters_are_sorted_without_buffers_and_decay_by_role() {
    let config = OptimizerConfig::Sgd(SgdConfig { weight_decay: 0.25, ..SgdConfig::default() });
    let set = ParameterSet::new(&net(), &GroupRules::new(&config)).unwrap();
    let names: Vec<&str> = set.iter().map(|parameter| parameter.name.as_str()).collect();
    assert_eq!(names, ["bn.weight", "head.fc.bias", "head.fc.weight"]);
    let decays: Vec<f64> = set.iter().map(|parameter| parameter.weight_decay).collect();
    assert_eq!(decays, [0.0, 0.0, 0.25]);
    assert_eq!((set.len(), set.num_values()), (3, 4));
    let all = OptimizerConfig::Sgd(SgdConfig { decay_norms_and_biases: true, ..SgdConfig::default() });
    let set = ParameterSet::new(&net(), &GroupRules::new(&all)).unwrap();
    assert!(set.iter().all(|parameter| parameter.weight_decay == 1e-4));
}

#[test]
fn groups_scale_and_freeze_by_whole_parts_of_names() {
    let rule = |prefix: &str, lr_scale| GroupRule { prefix: prefix.into(), lr_scale };
    let groups = |groups| GroupRules { groups, ..GroupRules::default() };
    let set = ParameterSet::new(&net(), &groups(vec![rule("head", 10.0), rule("head.fc.bias", 2.0)])).unwrap();
    let scales: Vec<f64> = set.iter().map(|parameter| parameter.lr_scale).collect();
    assert_eq!(scales, [1.0, 2.0, 10.0]);
    let set = ParameterSet::new(&net(), &groups(vec![rule("bn", 0.0)])).unwrap();
    assert!(set.get("bn.weight").is_none());
    let error = ParameterSet::new(&net(), &groups(vec![rule("hea", 1.0)])).unwrap_err().to_string();
    assert!(error.contains("\"hea\"") && error.contains("bn, head"), "{error}");
    assert!(ParameterSet::new(&net(), &groups(vec![rule("head", 0.0), rule("bn", 0.0)])).is_err());
    assert!(ParameterSet::new(&net(), &groups(vec![rule("head", -1.0)])).is_err());
}

#[test]
fn rates_by_depth_are_timms_and_groups_beat_them() {
    let layers = [vec!["bn".to_owned()], vec!["middle".to_owned()], vec!["head".to_owned()]];
    let config = |groups| {
        OptimizerConfig::Sgd(SgdConfig { layer_decay: 0.5, backbone_lr_scale: 0.1, groups, ..SgdConfig::default() })
    };
    let scales = |rules: &GroupRules| -> Vec<f64> {
        ParameterSet::new(&net(), rules).unwrap().iter().map(|parameter| parameter.lr_scale).collect()
    };
    assert_eq!(scales(&GroupRules::by_depth(&config(vec![]), &layers)), [0.25 * 0.1, 1.0, 1.0]);
    let bn = GroupRule { prefix: "bn".to_owned(), lr_scale: 3.0 };
    assert_eq!(scales(&GroupRules::by_depth(&config(vec![bn]), &layers)), [3.0, 1.0, 1.0]);

    // timm's param_groups_layer_decay(resnet18, layer_decay=0.5): 0.5^9 for the stem, 0.5 for the last block.
    let blocks = (1..=4).flat_map(|layer| [0, 1].map(|block| vec![format!("layer{layer}.{block}")]));
    let stem = vec!["conv1".to_owned(), "bn1".to_owned()];
    let resnet: Vec<Vec<String>> = [stem].into_iter().chain(blocks).chain([vec!["fc".to_owned()]]).collect();
    let decay = OptimizerConfig::AdamW(AdamWConfig { layer_decay: 0.5, ..AdamWConfig::default() });
    let rules = GroupRules::by_depth(&decay, &resnet).depths;
    let rate = |prefix: &str| rules.iter().find(|rule| rule.prefix == prefix).unwrap().lr_scale;
    assert_eq!(
        ["conv1", "bn1", "layer1.0", "layer4.1", "fc"].map(rate),
        [0.001953125, 0.001953125, 0.00390625, 0.5, 1.0]
    );
}

#[test]
fn frozen_parameters_are_left_out() {
    let frozen = |groups| GroupRules { groups, frozen: vec!["bn".to_owned()], ..GroupRules::default() };
    let set = ParameterSet::new(&net(), &frozen(vec![])).unwrap();
    assert_eq!(
        set.iter().map(|parameter| parameter.name.as_str()).collect::<Vec<_>>(),
        ["head.fc.bias", "head.fc.weight"]
    );
    let group = |prefix: &str| GroupRule { prefix: prefix.to_owned(), lr_scale: 2.0 };
    let error = ParameterSet::new(&net(), &frozen(vec![group("bn")])).unwrap_err().to_string();
    assert!(error.contains("optim.groups = bn") && error.contains("frozen"), "{error}");
    assert!(ParameterSet::new(&net(), &frozen(vec![group("head")])).is_ok());
}

#[test]
fn accumulated_mean_equals_one_large_batch() {
    let set = ParameterSet::new(&net(), &GroupRules::default()).unwrap();
    let mut sum = gradients(&set);
    sum.add(&gradients(&set)).unwrap();
    sum.scale(0.5);
    // What is added may come with a factor of its own.
    let mut more = gradients(&set);
    more.scale(0.5 / 16.0);
    let norm = gradients(&set).global_norm().unwrap().wait().unwrap();
    assert_eq!(sum.global_norm().unwrap().wait().unwrap(), norm);
    sum.add(&more).unwrap();
    assert!((sum.global_norm().unwrap().wait().unwrap() - norm * (1.0 + 0.5 / 16.0)).abs() < 1e-6);
    sum.scale(0.0);
    sum.add(&gradients(&set)).unwrap();
    assert_eq!(sum.global_norm().unwrap().wait().unwrap(), norm);
}

#[test]
fn a_factor_moves_parameters_as_scaled_gradients_do() {
    for config in [OptimizerConfig::Sgd(SgdConfig::default()), OptimizerConfig::AdamW(AdamWConfig::default())] {
        let moved = |factor: f64, of_loss: f64| {
            let set = ParameterSet::new(&net(), &GroupRules::default()).unwrap();
            let mut optimizer = Optimizer::new(&config, set.clone()).unwrap();
            for _ in 0..2 {
                let mut gradients = gradients_times(&set, of_loss);
                gradients.scale(factor);
                optimizer.step(&gradients, 0.1).unwrap();
            }
            let values = |parameter: &taper_optim::Parameter| parameter.var.flatten_all()?.to_vec1::<f32>();
            set.iter().map(|parameter| values(parameter).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(moved(0.25, 1.0), moved(1.0, 0.25));
    }
}

#[test]
fn clipping_bounds_the_global_norm_and_leaves_small_ones() {
    let set = ParameterSet::new(&net(), &GroupRules::default()).unwrap();
    let mut clipped = gradients(&set);
    let norm = clipped.global_norm().unwrap().wait().unwrap();
    assert!((norm - (1.0f64 + 0.25 + 1.0 + 4.0).sqrt()).abs() < 1e-6);
    clipped.clip(&clipped.global_norm().unwrap(), 0.5);
    assert!((clipped.global_norm().unwrap().wait().unwrap() - 0.5).abs() < 1e-5);
    let mut small = gradients(&set);
    small.clip(&small.global_norm().unwrap(), 100.0);
    assert_eq!(small.global_norm().unwrap().wait().unwrap(), norm);
}

#[test]
fn parameter_that_the_loss_ignores_gets_zeros() {
    let set = ParameterSet::new(&net(), &GroupRules::default()).unwrap();
    let loss = set.get("bn.weight").unwrap().var.sum_all().unwrap();
    let gradients = Gradients::take(&set, &loss.backward().unwrap()).unwrap();
    assert_eq!(gradients.global_norm().unwrap().wait().unwrap(), 1.0);
}

fn optimizers() -> [OptimizerConfig; 2] {
    let sgd = SgdConfig { nesterov: true, weight_decay: 0.1, ..SgdConfig::default() };
    [OptimizerConfig::Sgd(sgd), OptimizerConfig::AdamW(AdamWConfig::default())]
}

#[test]
fn restored_state_goes_on_as_if_never_stopped() {
    for config in optimizers() {
        let rules = GroupRules::new(&config);
        let mut whole = Optimizer::new(&config, ParameterSet::new(&net(), &rules).unwrap()).unwrap();
        let mut first = Optimizer::new(&config, ParameterSet::new(&net(), &rules).unwrap()).unwrap();
        for _ in 0..3 {
            whole.step(&gradients(whole.parameters()), 0.1).unwrap();
            first.step(&gradients(first.parameters()), 0.1).unwrap();
        }
        let mut second = Optimizer::new(&config, first.parameters().clone()).unwrap();
        second.restore(&first.state(), first.num_steps()).unwrap();
        for _ in 0..3 {
            whole.step(&gradients(whole.parameters()), 0.1).unwrap();
            second.step(&gradients(second.parameters()), 0.1).unwrap();
        }
        let (one, other) = (whole.parameters(), second.parameters());
        assert_eq!(values(one, "head.fc.weight"), values(other, "head.fc.weight"), "{config:?}");
        let mut broken = first.state();
        broken.pop_first();
        assert!(second.restore(&broken, 3).unwrap_err().to_string().contains("is missing"));
    }
}

#[test]
fn zero_rate_moves_nothing() {
    for config in optimizers() {
        let mut optimizer =
            Optimizer::new(&config, ParameterSet::new(&net(), &GroupRules::new(&config)).unwrap()).unwrap();
        optimizer.step(&gradients(optimizer.parameters()), 0.0).unwrap();
        assert_eq!(values(optimizer.parameters(), "head.fc.weight"), [1.0, 2.0]);
    }
}

#[test]
fn impossible_settings_are_named() {
    let cases = [
        (OptimizerConfig::Sgd(SgdConfig { lr: 0.0, ..SgdConfig::default() }), "optim.lr"),
        (OptimizerConfig::Sgd(SgdConfig { momentum: 1.0, ..SgdConfig::default() }), "optim.momentum"),
        (OptimizerConfig::Sgd(SgdConfig { momentum: 0.0, nesterov: true, ..SgdConfig::default() }), "optim.nesterov"),
        (OptimizerConfig::Sgd(SgdConfig { weight_decay: f64::NAN, ..SgdConfig::default() }), "optim.weight_decay"),
        (OptimizerConfig::AdamW(AdamWConfig { beta2: 1.5, ..AdamWConfig::default() }), "optim.beta2"),
        (OptimizerConfig::Sgd(SgdConfig { layer_decay: 0.0, ..SgdConfig::default() }), "optim.layer_decay"),
        (
            OptimizerConfig::AdamW(AdamWConfig { backbone_lr_scale: -1.0, ..AdamWConfig::default() }),
            "optim.backbone_lr_scale",
        ),
        (OptimizerConfig::AdamW(AdamWConfig { eps: 0.0, ..AdamWConfig::default() }), "optim.eps"),
    ];
    for (config, key) in cases {
        assert!(config.validate().unwrap_err().to_string().contains(key), "{key}");
    }
}

#[test]
fn average_follows_with_warm_up_and_swaps_both_ways() {
    let vars = vars(&[("w", &[0.0])]);
    let set = ParameterSet::new(&vars, &GroupRules::default()).unwrap();
    let mut ema = Ema::new(0.9, &set).unwrap();
    set.get("w").unwrap().var.set(&Tensor::new(&[11f32], &Device::Cpu).unwrap()).unwrap();
    ema.update(&set).unwrap();
    // The first decay is min(0.9, 2/11): the average moves by 9/11 of the distance.
    assert!((ema.state().0["w"].to_vec1::<f32>().unwrap()[0] - 9.0).abs() < 1e-5);
    ema.swap(&set).unwrap();
    assert!((values(&set, "w")[0] - 9.0).abs() < 1e-5);
    ema.swap(&set).unwrap();
    assert_eq!(values(&set, "w"), [11.0]);

    let (shadow, num_updates) = ema.state();
    let mut other = Ema::new(0.9, &set).unwrap();
    other.restore(shadow, num_updates).unwrap();
    ema.update(&set).unwrap();
    other.update(&set).unwrap();
    assert_eq!(ema.state().0["w"].to_vec1::<f32>().unwrap(), other.state().0["w"].to_vec1::<f32>().unwrap());
    assert!(Ema::new(1.0, &set).is_err());
    assert_eq!(other.state().0["w"].dtype(), DType::F32);
}
