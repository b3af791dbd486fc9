//! What is exported is read back as what it was.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use candle_nn::VarMap;
use taper_data::{ChannelStats, Interpolation, Preprocess};
use taper_hub::weights::{Document, Documents, FileForm, Naming, Origin, Pretrained, Source, WeightsFile, export};
use taper_models::{BaseNetConfig, ModelConfig, ResNetConfig, Stem, seeded};

fn tensors(config: &ModelConfig, num_classes: usize) -> BTreeMap<String, Tensor> {
    let vars = VarMap::new();
    config.build(num_classes, seeded(&vars, 0, &Device::Cpu)).unwrap();
    let vars = vars.data().lock().unwrap();
    vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
}

fn resnet18(stem: Stem, input_size: usize) -> ModelConfig {
    ModelConfig::ResNet18(ResNetConfig { stem, input_size, ..ResNetConfig::default() })
}

fn cropped(input: usize, resize: usize) -> Preprocess {
    let crop_pct = input as f32 / resize as f32;
    let input_size = [input; 2];
    Preprocess {
        input_size,
        resize: Some(resize),
        crop_pct,
        interpolation: Interpolation::Bicubic,
        ..Preprocess::imagenet()
    }
}

const CLASSES: [&str; 3] = ["ant", "bee \"x\"", "cicada"];

/// Exports, and reads the export as a stranger's.
fn round_trip(architecture: &ModelConfig, preprocessing: &Preprocess, naming: Naming) -> Pretrained {
    let classes = CLASSES.map(str::to_owned);
    let tensors = tensors(architecture, classes.len());
    let source = Source { architecture, tensors: &tensors, classes: &classes, preprocessing, licence: Some("mit") };
    let exported = export(&source, naming).unwrap();
    let document = |name: &str| {
        let found = exported.documents.iter().find(|(document, _)| *document == name);
        found.map(|(name, text)| Document { path: name.into(), text: text.clone() })
    };
    let documents = Documents { config: document("config.json"), preprocessor: document("preprocessor_config.json") };
    let file = WeightsFile {
        tensors: exported.tensors,
        metadata: BTreeMap::new(),
        form: FileForm::Safetensors,
        stored_types: BTreeMap::new(),
    };
    let read = Pretrained::of(file, Path::new("FILE"), &documents).unwrap();
    assert_eq!(read.tensors.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
    for (name, tensor) in &tensors {
        assert_eq!(read.tensors[name].id(), tensor.id(), "{name}");
    }
    read
}

#[test]
fn names_preprocessing_and_classes_come_back() {
    let stats = ChannelStats { mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6] };
    let small = Preprocess::unscaled([64, 64], stats);
    for preprocessing in [Preprocess::imagenet(), cropped(224, 235), cropped(160, 183), small] {
        let architecture = resnet18(Stem::ImageNet, preprocessing.input_size[0]);
        for naming in [Naming::Timm, Naming::Transformers] {
            let read = round_trip(&architecture, &preprocessing, naming);
            assert_eq!(read.architecture, architecture);
            assert_eq!(read.class_names(), CLASSES);
            assert_eq!(read.description.preprocessing_from, Origin::Configuration);
            assert_eq!(read.description.preprocessing, preprocessing);
        }
    }
    let read = round_trip(&resnet18(Stem::ResNetD, 224), &Preprocess::imagenet(), Naming::Timm);
    assert_eq!((read.naming, read.description.licence.as_deref()), (Naming::Timm, Some("mit")));
    let read = round_trip(&resnet18(Stem::ImageNet, 224), &Preprocess::imagenet(), Naming::Torchvision);
    assert_eq!(
        (read.class_names(), read.description.preprocessing_from),
        (vec!["0".into(), "1".into(), "2".into()], Origin::ImageNetDefault)
    );
}

#[test]
fn what_has_no_counterpart_is_refused() {
    let oblong = Preprocess { input_size: [224, 256], ..cropped(224, 256) };
    let basenet =
        ModelConfig::BaseNet(BaseNetConfig { width: 0.0625, depths: [1, 0, 0, 0], ..BaseNetConfig::default() });
    let cases = [
        (
            resnet18(Stem::Cifar, 32),
            Preprocess::imagenet(),
            Naming::Torchvision,
            "torchvision: it has no stem for small images",
        ),
        (resnet18(Stem::ResNetD, 224), Preprocess::imagenet(), Naming::Torchvision, "timm has"),
        (resnet18(Stem::ResNetD, 224), Preprocess::imagenet(), Naming::Transformers, "timm has"),
        (resnet18(Stem::ImageNet, 224), oblong, Naming::Timm, "square images only, not 224x256"),
        (basenet, Preprocess::imagenet(), Naming::Timm, "only ResNets"),
    ];
    for (architecture, preprocessing, naming, words) in cases {
        let tensors = tensors(&architecture, 3);
        let classes = CLASSES.map(str::to_owned);
        let source = Source {
            architecture: &architecture,
            tensors: &tensors,
            classes: &classes,
            preprocessing: &preprocessing,
            licence: None,
        };
        let message = export(&source, naming).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}
