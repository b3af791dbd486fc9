#!/usr/bin/env python3
"""Writes data/golden/weights/names.json: the names and shapes that torchvision, timm and transformers give networks.

Run from the repository root: python3 xtask/golden/weight_names.py
Needs: pip install -r xtask/golden/requirements.txt

For every network and library, the SHA-256 of its lines "name [shape]", sorted and each with a line feed; for
the smallest of transformers also the lines themselves, so that a difference can be seen. Of backbones of other
families, the lines of a small one of each.
"""
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import timm
import torch
import torchvision
import transformers
from safetensors import safe_open

SCRIPT = "xtask/golden/weight_names.py"
DEPTHS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}


def of_transformers(depth):
    basic = depth < 50
    sizes = [64, 128, 256, 512] if basic else [256, 512, 1024, 2048]
    config = transformers.ResNetConfig(depths=DEPTHS[depth], hidden_sizes=sizes, layer_type="basic" if basic else "bottleneck", num_labels=1000)
    return transformers.ResNetForImageClassification(config)


def foreign():
    dinov2 = transformers.Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
    return {
        "convnext_atto": ("timm", timm.create_model("convnext_atto")),
        "mobilenetv4_conv_small": ("timm", timm.create_model("mobilenetv4_conv_small")),
        "dinov2_small": ("timm", timm.create_model("vit_small_patch14_dinov2")),
        "dinov2_small of transformers": ("transformers", transformers.Dinov2Model(dinov2)),
    }


def saved_dinov2():
    """The lines of the file that transformers saves: its names are those of older versions, and of published files."""
    config = transformers.Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
    with tempfile.TemporaryDirectory() as folder:
        transformers.Dinov2Model(config).save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", "np") as file:
            return sorted(f"{name} {list(file.get_slice(name).get_shape())}" for name in file.keys())


def lines(model):
    return sorted(f"{name} {list(value.shape)}" for name, value in model.state_dict().items())


def main():
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "data/golden") / "weights" / "names.json"
    hashes, listed = {"torchvision": {}, "timm": {}, "transformers": {}}, []
    with torch.device("meta"):
        for depth in DEPTHS:
            models = [("torchvision", getattr(torchvision.models, f"resnet{depth}")(), ""), ("transformers", of_transformers(depth), "")]
            models += [("timm", timm.create_model(f"resnet{depth}{kind}"), kind) for kind in ("", "d")]
            for library, model, kind in models:
                text = "".join(line + "\n" for line in lines(model))
                hashes[library][f"resnet{depth}{kind}"] = hashlib.sha256(text.encode()).hexdigest()
                if library == "transformers" and depth == 18:
                    listed = text.splitlines()
        others = {name: {"library": library, "lines": lines(model)} for name, (library, model) in foreign().items()}
    others["dinov2_small saved by transformers"] = {"library": "transformers", "lines": saved_dinov2()}
    versions = {module.__name__: module.__version__ for module in (torchvision, timm, transformers)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"script": SCRIPT, "versions": versions, "sha256": hashes, "transformers_resnet18": listed, "foreign": others}, indent=1) + "\n")


if __name__ == "__main__":
    main()
