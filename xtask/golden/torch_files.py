#!/usr/bin/env python3
"""Makes data/fixtures/torch_files, tiny files of torch.save for the tests of taper-hub, and what they hold.

Run from the repository root: python3 xtask/golden/torch_files.py
Needs: pip install -r xtask/golden/requirements.txt

Each is written in both forms, `_zip.pth` and `_legacy.pth`:
  state    an OrderedDict with every type of number that is read, a transposed tensor, two that share a storage, a view
           with an offset, a parameter, an empty tensor and one of no axes
  nested   the float tensors of it as a checkpoint of several devices: module. before the names, under state_dict, beside
           an epoch, an optimizer's state and a float
  hostile  a state dict with an object that calls os.system on loading
data/golden/weights/torch_files.safetensors holds the tensors of `state`, fractions as f32 and integers as i64.
"""
import os
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

SCRIPT = "xtask/golden/torch_files.py"


class Hostile:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def state():
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    return OrderedDict(
        [
            ("dense.weight", base),
            ("shared.weight", base),
            ("transposed.weight", base.t()),
            ("offset.weight", base[1:3, 2:5]),
            ("parameter.weight", torch.nn.Parameter(torch.randn(3))),
            ("half.weight", torch.randn(2, 3).half()),
            ("bfloat16.weight", torch.randn(2, 3).bfloat16()),
            ("double.weight", torch.randn(2, 3, dtype=torch.float64)),
            ("int.weight", torch.tensor([-1, 2], dtype=torch.int32)),
            ("short.weight", torch.tensor([-3, 4], dtype=torch.int16)),
            ("byte.weight", torch.tensor([5, 250], dtype=torch.uint8)),
            ("bool.weight", torch.tensor([True, False])),
            ("empty.weight", torch.zeros(0, 3)),
            ("bn.num_batches_tracked", torch.tensor(12345)),
        ]
    )


def save(value, folder, name):
    torch.save(value, folder / f"{name}_zip.pth")
    torch.save(value, folder / f"{name}_legacy.pth", _use_new_zipfile_serialization=False)


def main():
    golden = Path(sys.argv[1] if len(sys.argv) > 1 else "data/golden") / "weights"
    folder = Path("data/fixtures/torch_files")
    golden.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = state()
    save(tensors, folder, "state")
    floats = OrderedDict((f"module.{name}", value) for name, value in tensors.items() if value.dtype == torch.float32)
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    save({"epoch": 3, "state_dict": floats, "optimizer": optimizer, "best": 0.75}, folder, "nested")
    save({"weight": torch.ones(2), "evil": Hostile()}, folder, "hostile")
    plain = {name: value.detach().to(torch.float32 if value.is_floating_point() else torch.int64) for name, value in tensors.items()}
    save_file({name: value.clone().contiguous() for name, value in plain.items()}, golden / "torch_files.safetensors", metadata={"script": SCRIPT, "torch": torch.__version__})


if __name__ == "__main__":
    main()
