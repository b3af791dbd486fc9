//! cuDNN's plans for every convolution of the networks, made for a GPU that is only described: needs the real cuDNN, 9.8
//! or later, and neither GPU nor driver.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use candle_core::DType;
use serde_json::json;
use taper_kernels::{DescribedDevice, LayerShape};

use crate::network::Model;
use crate::shapes::{ConvCase, convolutions};

/// Properties of an H200 as cuDNN 9.19 writes them; clocks and memory are those of its data sheet.
const H200: &str = include_str!("h200.json");

/// `taper-check plans`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// JSON of the device's properties, as cuDNN writes them; an H200's when left out
    #[arg(long, value_name = "FILE")]
    described: Option<PathBuf>,
    /// Images of a batch
    #[arg(long, default_value_t = 128)]
    batch: usize,
}

/// One JSON object for each convolution and type; fails at the first that has no plan.
pub(crate) fn run(args: &Args) -> Result<()> {
    let properties = match &args.described {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => H200.to_owned(),
    };
    let device = DescribedDevice::from_json(&properties)?;
    for model in [Model::BaseNet, Model::ResNet18, Model::ResNet50] {
        for case in convolutions(model) {
            for dtype in [DType::BF16, DType::F32] {
                let plans =
                    device.plans(&layer(case, args.batch), dtype).with_context(|| format!("{model}: {case:?}"))?;
                let [forward, input, added, weight] =
                    plans.map(|plan| json!({"engine": plan.engine, "workspace_bytes": plan.workspace_bytes}));
                let shape = [args.batch, case.h, case.w, case.c_in, case.c_out, case.kernel, case.stride];
                println!(
                    "{}",
                    json!({
                        "kind": "plan", "model": model.to_string(), "dtype": dtype.as_str(), "n_h_w_c_k_r_stride": shape,
                        "forward": forward, "input_gradient": input, "added_input_gradient": added, "weight_gradient": weight,
                    })
                );
            }
        }
    }
    Ok(())
}

fn layer(case: &ConvCase, images: usize) -> LayerShape {
    LayerShape {
        images,
        input: [case.h, case.w],
        channels: [case.c_in, case.c_out],
        kernel: [case.kernel; 2],
        geometry: case.geometry(),
    }
}
