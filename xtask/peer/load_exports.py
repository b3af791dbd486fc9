#!/usr/bin/env python3
"""Exports weights to torchvision, timm and transformers, loads each there, and compares logits with `taper predict`.

python3 xtask/peer/load_exports.py TAPER WEIGHTS PHOTOS [COUNT]
TAPER is the binary, WEIGHTS a ResNet's file whose preprocessing is ImageNet's, PHOTOS a folder of images, of which the
first COUNT (8) are made 256 pixels square, so that every program crops the same pixels. Each library is then also asked
to prepare the pictures by the configuration that was exported. Files of torch.save in both forms, nested, and
with the names of transformers are written from the exports and must be understood as the same network.
Needs: pip install -r xtask/golden/requirements.txt pillow
"""
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import load_file

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def call(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def predict(taper, weights, folder, table):
    call(taper, "predict", weights, folder, "--logits", "--csv", table)
    rows = sorted(csv.DictReader(open(table)), key=lambda row: row["path"])
    return torch.tensor([[float(row[f"logit_{index}"]) for index in range(sum(key.startswith("logit_") for key in row))] for row in rows])


def of_torchvision(folder, name):
    model = getattr(torchvision.models, name)()
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return model.eval(), None


def of_timm(folder, name):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model.pretrained_cfg["architecture"] == name
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return model.eval(), lambda images: torch.stack([transform(image) for image in images])


def of_transformers(folder, name):
    model, info = transformers.AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.get(key) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    return (lambda pixels: model.eval()(pixels).logits), lambda images: processor(images, return_tensors="pt")["pixel_values"]


def report(what, logits, expected, bound):
    worst = ((logits - expected).abs().max() / expected.abs().max()).item()
    same = (logits.argmax(1) == expected.argmax(1)).sum().item()
    print(f"{what:<44} largest difference {worst:.2e} of the largest logit, same class {same} of {len(expected)}")
    return worst <= bound and same == len(expected)


def torch_saves(work, exported):
    """The same weights as other programs save them."""
    tensors = load_file(exported["torchvision"] / "model.safetensors")
    theirs = load_file(exported["transformers"] / "model.safetensors")
    for name, value, options in [
        ("zip.pth", tensors, {}),
        ("legacy.pth", tensors, {"_use_new_zipfile_serialization": False}),
        ("nested.bin", {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}}, {}),
        ("transformers.bin", theirs, {}),
    ]:
        torch.save(value, work / name, **options)
        yield name, work / name


def main(taper, weights, photos, count=8):
    ok, work = True, Path(tempfile.mkdtemp())
    name = [line.split(None, 1)[1] for line in call(taper, "inspect", "weights", weights).splitlines() if line.startswith("architecture")][0]
    name = json.loads(name)["name"]
    (work / "images").mkdir()
    images = [Image.open(path).convert("RGB").resize((256, 256)) for path in sorted(Path(photos).iterdir())[: int(count)]]
    for index, image in enumerate(images):
        image.save(work / "images" / f"{index:03}.png")
    crops = torch.stack([torch.from_numpy(np.asarray(image)[16:240, 16:240].copy()) for image in images]).float() / 255
    pixels = ((crops - MEAN) / STD).permute(0, 3, 1, 2)
    ours = predict(taper, weights, work / "images", work / "ours.csv")
    exported = {}
    for library, load in (("torchvision", of_torchvision), ("timm", of_timm), ("transformers", of_transformers)):
        folder = exported[library] = work / library
        call(taper, "export", weights, "--format", library, "--output", folder)
        model, prepare = load(folder, name)
        with torch.no_grad():
            ok &= report(f"{name} in {library}", model(pixels), ours, 1e-5)
            if prepare:
                ok &= report(f"{name} in {library}, prepared there", model(prepare(images)), ours, 1e-3)
        ok &= report(f"{name} exported to {library}, read back", predict(taper, folder / "model.safetensors", work / "images", work / "back.csv"), ours, 0)
    for what, path in torch_saves(work, exported):
        ok &= report(f"{name} of {what}", predict(taper, path, work / "images", work / "saved.csv"), ours, 0)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
