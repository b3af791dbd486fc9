#!/usr/bin/env python3
"""Writes data/golden/foreign/features.safetensors: features of timm's backbones, with parameters made by a formula.

Run from the repository root: python3 xtask/golden/foreign.py
Needs: pip install -r xtask/golden/requirements.txt

The parameters are numbers that a test can make too (`filled` below), so the file holds features alone, under the names
that taper gives the backbones. Everything is computed in f64 and rounded. DINOv2's table of positions is interpolated
as transformers does it: bicubic, corners not aligned, no antialiasing.
"""
import argparse
import math
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

BATCH = 2
# taper's name, timm's, side of the images.
BACKBONES = [
    ("dinov2_small", "vit_small_patch14_dinov2", 70),
    ("convnext_atto", "convnext_atto", 64),
    ("convnext_tiny", "convnext_tiny", 32),
    ("mobilenetv4_conv_small", "mobilenetv4_conv_small", 64),
]


def fnv1a(text):
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) % 2**32
    return value


def filled(name, shape):
    """Numbers in (-1/2, 1/2) that look random, at the scale that suits the parameter."""
    count = math.prod(shape)
    index = torch.arange(count, dtype=torch.int64)
    values = ((index * 7919 + fnv1a(name) % 1009) % 1009).double() / 1009 - 0.5
    if name.endswith("running_var") or len(shape) == 1 and name.endswith(("weight", "gamma")):
        values = values + 1
    elif len(shape) == 1:
        values = values * 0.2
    elif name.endswith("weight"):
        # Of the variance that a rectifier needs to pass on what it gets.
        values = values * 4.9 / math.sqrt(count / shape[0])
    # As a file of weights would hold them.
    return values.float().double().reshape(shape)


def images(side):
    index = torch.arange(BATCH * side * side * 3, dtype=torch.int64)
    pixels = ((index * 37 % 101).double() - 50) / 30
    return pixels.float().double().reshape(BATCH, side, side, 3).permute(0, 3, 1, 2)


def positions_for(table, side):
    """A DINOv2's table for a grid of side × side patches."""
    grid = table[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def features(name, theirs, side):
    sized = {"img_size": side} if name.startswith("dinov2") else {}
    model = timm.create_model(theirs, num_classes=0, **sized).double().eval()
    state = model.state_dict()
    for key, value in state.items():
        if key == "pos_embed":
            state[key] = positions_for(filled(key, (1, 1 + 37 * 37, value.shape[-1])), side // 14)
        elif not key.endswith("num_batches_tracked"):
            state[key] = filled(key, tuple(value.shape))
    model.load_state_dict(state)
    with torch.no_grad():
        found = model(images(side))
    print(f"{name}: {tuple(found.shape)}, largest {found.abs().max():.4f}, spread {found.std(dim=1).mean():.4f}, "
          f"images apart {(found[0] - found[1]).abs().max():.4f}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", default="data/golden", type=Path)
    folder = parser.parse_args().output / "foreign"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: features(name, theirs, side).float().contiguous() for name, theirs, side in BACKBONES}
    versions = {"script": "xtask/golden/foreign.py", "timm": timm.__version__, "torch": torch.__version__}
    save_file(tensors, folder / "features.safetensors", metadata=versions)


if __name__ == "__main__":
    main()
