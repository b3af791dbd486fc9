//! Backbones of other families: every tensor that timm and transformers give them finds its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use serde_json::Value;
use taper_hub::weights::{
    CONFIG, Document, Documents, FileForm, Head, Naming, PREPROCESSOR_CONFIG, Pretrained, WeightsError, WeightsFile,
    load,
};
use taper_models::{ForeignConfig, ModelConfig, seeded};

use crate::data;

const DINOV2: &str = r#"{"model_type": "dinov2", "hidden_size": 384, "num_hidden_layers": 12, "patch_size": 14,
    "hidden_act": "gelu", "use_swiglu_ffn": false, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}"#;
/// What facebook/dinov2-small has.
const DINOV2_PREPROCESSOR: &str = r#"{"image_processor_type": "BitImageProcessor", "resample": 3, "do_center_crop": true,
    "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}"#;

/// As published files have it.
const SAVED: &str = "dinov2_small saved by transformers";

fn golden(name: &str) -> Vec<(String, Vec<usize>)> {
    let golden: Value = serde_json::from_slice(&std::fs::read(data("golden/weights/names.json")).unwrap()).unwrap();
    let lines = golden["foreign"][name]["lines"].as_array().unwrap();
    let line = |line: &Value| {
        let (name, shape) = line.as_str().unwrap().split_once(' ').unwrap();
        (name.to_owned(), serde_json::from_str(shape).unwrap())
    };
    lines.iter().map(line).collect()
}

/// Tensors of these shapes, each filled with a number of its own.
fn file(shapes: &[(String, Vec<usize>)]) -> WeightsFile {
    let numbered = shapes.iter().enumerate().map(|(number, (name, shape))| {
        (name.clone(), Tensor::full(number as f32, shape.as_slice(), &Device::Cpu).unwrap())
    });
    WeightsFile {
        tensors: numbered.collect(),
        metadata: BTreeMap::new(),
        form: FileForm::Safetensors,
        stored_types: BTreeMap::new(),
    }
}

fn documents(config: &str, preprocessor: Option<&str>) -> Documents {
    let document = |name: &str, text: &str| Document { path: PathBuf::from(name), text: text.to_owned() };
    Documents {
        config: Some(document(CONFIG, config)),
        preprocessor: preprocessor.map(|text| document(PREPROCESSOR_CONFIG, text)),
    }
}

fn understand(name: &str, documents: &Documents) -> Result<Pretrained, WeightsError> {
    Pretrained::of(file(&golden(name)), Path::new("FILE"), documents)
}

fn first(tensor: &Tensor) -> f32 {
    tensor.flatten_all().unwrap().get(0).unwrap().to_scalar().unwrap()
}

#[test]
fn every_tensor_finds_its_place() {
    let timm =
        |architecture: &str| format!(r#"{{"architecture": "{architecture}", "pretrained_cfg": {{"tag": "x"}}}}"#);
    let cases = [
        ("convnext_atto", timm("convnext_atto"), None, Naming::Timm, Some(1000)),
        ("mobilenetv4_conv_small", timm("mobilenetv4_conv_small"), None, Naming::Timm, Some(1000)),
        ("dinov2_small", timm("vit_small_patch14_dinov2"), None, Naming::Timm, None),
        ("dinov2_small of transformers", DINOV2.to_owned(), Some(DINOV2_PREPROCESSOR), Naming::Transformers, None),
        (SAVED, DINOV2.to_owned(), Some(DINOV2_PREPROCESSOR), Naming::Transformers, None),
    ];
    for (name, config, preprocessor, naming, num_classes) in cases {
        let found = understand(name, &documents(&config, preprocessor)).unwrap();
        let backbone = name.split(' ').next().unwrap().to_owned();
        let expected = ModelConfig::Foreign(ForeignConfig { backbone, input_size: 224 });
        assert_eq!((&found.architecture, found.naming, found.num_classes), (&expected, naming, num_classes), "{name}");
        assert_eq!(found.class_names().len(), num_classes.unwrap_or(0));
        assert_eq!(found.description.preprocessing.input_size, [224, 224]);
        let heads: &[Head] = if num_classes.is_some() { &[Head::Replaced, Head::Loaded] } else { &[Head::Replaced] };
        for head in heads {
            let vars = VarMap::new();
            found.architecture.build(num_classes.unwrap_or(7), seeded(&vars, 0, &Device::Cpu)).unwrap();
            let report = load(&found.tensors, &vars, *head, Path::new("FILE")).unwrap();
            let expected: &[&str] = if *head == Head::Replaced { &["fc.bias", "fc.weight"] } else { &[] };
            assert_eq!(report.missing, expected, "{name}");
        }
    }
}

#[test]
fn attention_is_joined_in_the_order_query_key_value() {
    let shapes = golden(SAVED);
    let number = |part: &str| {
        let name = format!("encoder.layer.3.attention.attention.{part}.bias");
        shapes.iter().position(|(known, _)| *known == name).unwrap() as f32
    };
    let found = understand(SAVED, &documents(DINOV2, Some(DINOV2_PREPROCESSOR))).unwrap();
    let joined: Vec<f32> = found.tensors["backbone.blocks.3.attn.qkv.bias"].to_vec1().unwrap();
    assert_eq!([joined[0], joined[384], joined[1151]], ["query", "key", "value"].map(number));
    let position = shapes.iter().position(|(name, _)| name == "encoder.layer.3.layer_scale2.lambda1").unwrap();
    assert_eq!(first(&found.tensors["backbone.blocks.3.ls2.gamma"]), position as f32);
    assert_eq!(found.description.preprocessing.resize, Some(256));
}

#[test]
fn what_does_not_fit_is_named() {
    let changed = DINOV2.replace("\"patch_size\": 14", "\"patch_size\": 16");
    let message = understand(SAVED, &documents(&changed, None)).unwrap_err().to_string();
    assert!(message.contains("patch_size is 16; expected 14"), "{message}");

    // Without the configuration, the tensors say too little.
    let message = Pretrained::of(file(&golden("convnext_atto")), Path::new("FILE"), &Documents::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("no config.json beside it names another network"), "{message}");

    let lost = |shapes: Vec<(String, Vec<usize>)>, part: &str| -> Vec<(String, Vec<usize>)> {
        shapes.into_iter().filter(|(name, _)| !name.contains(part)).collect()
    };
    let shapes = lost(golden(SAVED), "layer.5.attention.attention.key.weight");
    let message = Pretrained::of(file(&shapes), Path::new("FILE"), &documents(DINOV2, None)).unwrap_err().to_string();
    assert!(message.contains("but no backbone.blocks.5.attn.key.weight"), "{message}");

    let mut shapes = golden(SAVED);
    shapes.push(("encoder.layer.0.attention.q_proj.bias".to_owned(), vec![384]));
    let message = Pretrained::of(file(&shapes), Path::new("FILE"), &documents(DINOV2, None)).unwrap_err().to_string();
    assert!(message.contains("is there twice, under two names"), "{message}");

    let mut tensors = understand("convnext_atto", &documents(r#"{"architecture": "convnext_atto"}"#, None)).unwrap();
    tensors.tensors.remove("backbone.stages.2.blocks.1.gamma");
    let extra = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    tensors.tensors.insert("backbone.stages.9.gamma".into(), extra);
    let vars = VarMap::new();
    tensors.architecture.build(2, seeded(&vars, 0, &Device::Cpu)).unwrap();
    let message = load(&tensors.tensors, &vars, Head::Replaced, Path::new("FILE")).unwrap_err().to_string();
    for part in ["1 missing: backbone.stages.2.blocks.1.gamma", "1 unexpected: backbone.stages.9.gamma"] {
        assert!(message.contains(part), "{message}");
    }
}
