use super::*;
use taper_data::Interpolation;

const RESNET18: Facts<'_> = Facts { name: "resnet18", kind: Kind::ResNet, num_classes: Some(2) };

fn documents(config: &str, preprocessor: &str) -> Documents {
    let document = |name: &str, text: &str| {
        (!text.is_empty()).then(|| Document { path: PathBuf::from(name), text: text.to_owned() })
    };
    Documents { config: document(CONFIG, config), preprocessor: document(PREPROCESSOR_CONFIG, preprocessor) }
}

fn describe(config: &str, preprocessor: &str) -> Result<Description, String> {
    Description::of(&documents(config, preprocessor), &RESNET18).map_err(|error| error.to_string())
}

/// `[input side, resize or 0]` and the interpolation.
fn geometry(description: &Description) -> ([usize; 2], Interpolation) {
    let preprocessing = &description.preprocessing;
    ([preprocessing.input_size[0], preprocessing.resize.unwrap_or(0)], preprocessing.interpolation)
}

#[test]
fn silence_is_imagenets_default() {
    let description = describe("", "").unwrap();
    assert_eq!(description.preprocessing, Preprocess::imagenet());
    assert_eq!(description.preprocessing_from, Origin::ImageNetDefault);
    assert_eq!((description.classes, description.licence), (None, None));
}

#[test]
fn timm_is_read() {
    let nested = r#"{"architecture": "resnet18", "num_classes": 2, "label_names": ["ant", "bee"], "pretrained_cfg":
        {"input_size": [3, 224, 224], "test_input_size": [3, 288, 288], "crop_pct": 0.95, "interpolation": "bicubic",
         "crop_mode": "center", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "license": "apache-2.0"}}"#;
    let description = describe(nested, "").unwrap();
    assert_eq!(geometry(&description), ([224, 235], Interpolation::Bicubic));
    assert_eq!((description.preprocessing.mean, description.preprocessing.std), ([0.5; 3], [0.25; 3]));
    assert_eq!(description.classes.unwrap(), ["ant", "bee"]);
    assert_eq!(description.licence.unwrap(), "apache-2.0");
    assert_eq!(description.preprocessing_from, Origin::Configuration);
    let cases = [
        (r#"{"architecture": "swsl_resnet18", "interpolation": "bilinear", "crop_pct": 0.875}"#, [224, 256]),
        (r#"{"architecture": "resnet18.tv_in1k", "pretrained_cfg": {"interpolation": "bilinear"}}"#, [224, 256]),
        (
            r#"{"architecture": "resnet18", "interpolation": "bilinear", "crop_mode": "squash", "crop_pct": 1.0, "input_size": [3, 32, 32]}"#,
            [32, 0],
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(geometry(&describe(config, "").unwrap()), (expected, Interpolation::Bilinear), "{config}");
    }
}

#[test]
fn transformers_is_read() {
    let config = r#"{"model_type": "resnet", "hidden_act": "relu", "downsample_in_first_stage": false, "id2label": {"1": "bee", "0": "ant"}}"#;
    let description = describe(config, "").unwrap();
    assert_eq!(description.classes.unwrap(), ["ant", "bee"]);
    assert_eq!(description.preprocessing_from, Origin::ImageNetDefault);
    // The first is what microsoft/resnet-18 has.
    let cases = [
        (
            r#"{"crop_pct": 0.875, "do_normalize": true, "do_resize": true, "feature_extractor_type": "ConvNextFeatureExtractor", "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224}"#,
            [224, 256],
            Interpolation::Bicubic,
        ),
        (
            r#"{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "resample": 2}"#,
            [384, 0],
            Interpolation::Bilinear,
        ),
        (
            r#"{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 235}, "crop_size": {"height": 224, "width": 224}, "resample": 3}"#,
            [224, 235],
            Interpolation::Bicubic,
        ),
        (
            r#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2}"#,
            [32, 0],
            Interpolation::Bilinear,
        ),
    ];
    for (preprocessor, expected, interpolation) in cases {
        let description = describe(config, preprocessor).unwrap();
        assert_eq!(geometry(&description), (expected, interpolation), "{preprocessor}");
        assert_eq!(description.preprocessing.mean, Preprocess::imagenet().mean);
        assert_eq!(description.preprocessing_from, Origin::Configuration);
    }
}

#[test]
fn contradictions_and_unknown_things_are_named() {
    let cases = [
        ("[1]", "", "config.json: not the JSON object"),
        ("{}", "", "no \"architecture\""),
        (r#"{"architecture": "resnetblur18"}"#, "", "\"resnetblur18\", but the tensors are those of resnet18"),
        (r#"{"architecture": "resnet18d"}"#, "", "those of resnet18"),
        (r#"{"architecture": "resnet18", "interpolation": "lanczos"}"#, "", "interpolation is \"lanczos\""),
        (r#"{"architecture": "resnet18", "crop_pct": 0}"#, "", "crop_pct is 0"),
        (r#"{"architecture": "resnet18", "crop_pct": -1e-300}"#, "", "crop_pct is -"),
        (r#"{"architecture": "resnet18", "crop_mode": "border"}"#, "", "crop_mode \"border\""),
        (r#"{"architecture": "resnet18", "input_size": [1, 224, 224]}"#, "", "input_size is [1,224,224]"),
        (r#"{"architecture": "resnet18", "input_size": [3, 1e9, 224]}"#, "", "input_size is 1000000000"),
        (r#"{"architecture": "resnet18", "mean": [0.5, "x", 0.5]}"#, "", "mean is"),
        (
            r#"{"architecture": "resnet18", "label_names": ["a"]}"#,
            "",
            "label_names gives 1 classes, but the weights have 2",
        ),
        (r#"{"model_type": "vit"}"#, "", "model_type is \"vit\""),
        (r#"{"model_type": "resnet", "downsample_in_bottleneck": true}"#, "", "downsample_in_bottleneck is true"),
        (r#"{"model_type": "resnet", "num_channels": 1}"#, "", "num_channels is 1; expected 3"),
        (r#"{"model_type": "resnet", "hidden_act": "gelu"}"#, "", "hidden_act"),
        (r#"{"model_type": "resnet", "id2label": {"0": "a", "2": "b"}}"#, "", "no text under 1"),
        ("", r#"{"size": 224, "do_resize": false}"#, "preprocessor_config.json: do_resize is false"),
        ("", r#"{"size": 224, "rescale_factor": 1}"#, "rescale_factor"),
        ("", r#"{"size": 224, "resample": 1}"#, "resample is 1"),
        ("", r#"{"size": 0}"#, "size is 0"),
        ("", r#"{}"#, "it has no size"),
        ("", r#"{"size": 224}"#, "it has no resample"),
        ("", r#"{"size": 224, "resample": 3, "image_std": [0, 1, 1]}"#, "std"),
        ("", r#"{"size": 224, "image_processor_type": "DonutImageProcessor"}"#, "DonutImageProcessor"),
    ];
    for (config, preprocessor, words) in cases {
        let message = describe(config, preprocessor).unwrap_err();
        assert!(message.contains(words), "{config} {preprocessor}: {message}");
    }
}

#[test]
fn every_crop_share_leads_back() {
    for side in [32usize, 128, 160, 176, 224, 288, 384] {
        for scaled in side..=2 * side {
            assert_eq!(scaled_side(side, crop_pct(side, scaled)), Ok(scaled));
        }
    }
}
