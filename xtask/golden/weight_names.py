#!/usr/bin/env python3
"""Writes data/golden/weights/names.json: the names and shapes that torchvision, timm and transformers give a ResNet.

Run from the repository root: python3 xtask/golden/weight_names.py
Needs: pip install -r xtask/golden/requirements.txt

For every network and library, the SHA-256 of its lines "name [shape]", sorted and each with a line feed; for
the smallest of transformers also the lines themselves, so that a difference can be seen.
"""
import hashlib
import json
import sys
from pathlib import Path

import timm
import torch
import torchvision
import transformers

SCRIPT = "xtask/golden/weight_names.py"
DEPTHS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}


def of_transformers(depth):
    basic = depth < 50
    sizes = [64, 128, 256, 512] if basic else [256, 512, 1024, 2048]
    config = transformers.ResNetConfig(depths=DEPTHS[depth], hidden_sizes=sizes, layer_type="basic" if basic else "bottleneck", num_labels=1000)
    return transformers.ResNetForImageClassification(config)


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
    versions = {module.__name__: module.__version__ for module in (torchvision, timm, transformers)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"script": SCRIPT, "versions": versions, "sha256": hashes, "transformers_resnet18": listed}, indent=1) + "\n")


if __name__ == "__main__":
    main()
