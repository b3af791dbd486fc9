//! Both forms of torch.save, and safetensors, hold the same tensors.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use taper_hub::weights::{FileForm, WeightsFile};

use crate::{data, fixture, parse, safetensors};

fn golden() -> BTreeMap<String, Tensor> {
    WeightsFile::read(&data("golden/weights/torch_files.safetensors")).unwrap().tensors
}

/// Exactly: conversion to f32 from less is exact, and from f64 rounds as PyTorch does.
#[track_caller]
fn require_equal(tensor: &Tensor, expected: &Tensor, name: &str) {
    assert_eq!((tensor.dims(), tensor.dtype()), (expected.dims(), expected.dtype()), "{name}");
    match tensor.dtype() {
        DType::I64 => {
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<i64>().unwrap();
            assert_eq!(values(tensor), values(expected), "{name}");
        }
        _ => {
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(tensor), values(expected), "{name}");
        }
    }
}

#[test]
fn torch_files_hold_what_pytorch_put_in() {
    let golden = golden();
    for (name, form) in [("state_zip.pth", FileForm::TorchZip), ("state_legacy.pth", FileForm::TorchLegacy)] {
        let file = parse(&fixture(name)).unwrap();
        assert_eq!(file.form, form);
        assert_eq!(file.tensors.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
        for (tensor_name, expected) in &golden {
            require_equal(&file.tensors[tensor_name], expected, tensor_name);
        }
        let types: Vec<_> = file.stored_types.into_iter().collect();
        let expected = [("bf16", 1), ("f16", 1), ("f32", 6), ("f64", 1), ("i16", 1), ("i32", 1), ("i64", 1), ("u8", 2)];
        assert_eq!(types, expected);
    }
}

#[test]
fn a_nested_state_dict_of_several_devices_is_found() {
    let golden = golden();
    for name in ["nested_zip.pth", "nested_legacy.pth"] {
        let file = parse(&fixture(name)).unwrap();
        let names: Vec<&str> = file.tensors.keys().map(String::as_str).collect();
        let expected =
            ["dense.weight", "empty.weight", "offset.weight", "parameter.weight", "shared.weight", "transposed.weight"];
        assert_eq!(names, expected);
        for name in expected {
            require_equal(&file.tensors[name], &golden[name], name);
        }
    }
}

#[test]
fn safetensors_of_half_precision_are_read() {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BOOL","shape":[1],"data_offsets":[4,5]}}"#;
    let file = parse(&safetensors(header, &[0x00, 0x3c, 0x00, 0xc0, 1])).unwrap();
    assert_eq!(file.tensors["a"].to_vec1::<f32>().unwrap(), [1.0, -2.0]);
    assert_eq!(file.tensors["b"].to_vec1::<i64>().unwrap(), [1]);
    assert_eq!((file.form, file.metadata["format"].as_str()), (FileForm::Safetensors, "pt"));
}
