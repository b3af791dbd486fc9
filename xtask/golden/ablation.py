#!/usr/bin/env python3
"""Writes data/golden/ablation/small.safetensors: the ablation study's networks in PyTorch, made narrow.

Run from the repository root: python3 xtask/golden/ablation.py
Needs: pip install -r xtask/golden/requirements.txt

For each of the steps 0 to 9, and for two variants (batch norm after ReLU, group convolutions), the file holds the
weights, the logits in evaluation mode, the mean cross-entropy of the same batch in training mode and, from it, the
gradient of the first convolution; the metadata hold the narrow configuration and how many parameters the step has at
its full width. Images are channels-last. Everything is computed in f64 and rounded, so that the file does not depend on
the order of PyTorch's sums.
"""
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

SCRIPT = "xtask/golden/ablation.py"
BATCH, SIZE, CLASSES = 4, 16, 10
INITIAL = dict(
    width=1.0, channels=[6, 16], pools_after=[1, 2], kernel=5, padding=0, convs_per_block=1, norm="none", skip="none",
    residual_scale=1.0, head_norm="none", groups=1, input_size=32,
)
# As the report tells it; the channels of the steps 2 and 3 are taper's.
CHANGES = [
    {},
    {"norm": "before-relu"},
    {"channels": [16, 16, 32, 32, 64], "pools_after": [2, 4], "kernel": 3, "padding": 1},
    {"channels": [16, 16, 32, 32, 64, 64]},
    {"convs_per_block": 2},
    {"skip": "add"},
    {"residual_scale": 0.1},
    {"head_norm": "hidden"},
    {},
    {},
]


class Unit(nn.Module):
    def __init__(self, c_in, c_out, groups, config):
        super().__init__()
        self.norm = config["norm"]
        bias = self.norm != "before-relu"
        self.conv = nn.Conv2d(c_in, c_out, config["kernel"], padding=config["padding"], groups=groups, bias=bias)
        self.bn = nn.Identity() if self.norm == "none" else nn.BatchNorm2d(c_out)

    def forward(self, x):
        x = self.conv(x)
        return self.bn(F.relu(x)) if self.norm == "after-relu" else F.relu(self.bn(x))


class Block(nn.Module):
    def __init__(self, c_in, c_out, is_first, config):
        super().__init__()
        ins = [c_in] + [c_out] * (config["convs_per_block"] - 1)
        groups = [1 if is_first and index == 0 else config["groups"] for index in range(len(ins))]
        self.units = nn.ModuleList(Unit(c, c_out, g, config) for c, g in zip(ins, groups))
        self.adds, self.scale = config["skip"] == "add", config["residual_scale"]
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False) if self.adds and c_in != c_out else nn.Identity()

    def forward(self, x):
        y = x
        for unit in self.units:
            y = unit(y)
        return self.scale * y + self.shortcut(x) if self.adds else y


class Net(nn.Module):
    def __init__(self, config, num_classes):
        super().__init__()
        channels = [max(1, int(c * config["width"])) for c in config["channels"]]
        self.pools_after, side = config["pools_after"], config["input_size"]
        self.blocks = nn.ModuleList()
        for index, (c_in, c_out) in enumerate(zip([3] + channels, channels)):
            self.blocks.append(Block(c_in, c_out, index == 0, config))
            side += config["convs_per_block"] * (2 * config["padding"] + 1 - config["kernel"])
            side = side // 2 if index + 1 in self.pools_after else side
        self.fc1 = nn.Linear(channels[-1] * side * side, 50)
        self.bn = nn.BatchNorm1d(50) if config["head_norm"] == "hidden" else nn.Identity()
        self.fc2 = nn.Linear(50, num_classes)

    def forward(self, x):
        for index, block in enumerate(self.blocks):
            x = block(x)
            x = F.max_pool2d(x, 2) if index + 1 in self.pools_after else x
        return self.fc2(F.relu(self.bn(self.fc1(x.flatten(1)))))


def ours(name):
    """taper's name of a parameter."""
    parts = name.split(".")
    if parts[0] != "blocks":
        return f"head.{name}"
    if parts[2] == "shortcut":
        return name
    block, unit, layer, rest = parts[1], int(parts[3]), parts[4], parts[5]
    return f"blocks.{block}.{layer}{unit + 1}.{rest}"


def randomise(model):
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for values, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):
                nn.init.uniform_(values, low, high)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)


def golden(config, images, labels):
    model = Net(config, CLASSES)
    randomise(model)
    tensors = {f"weights.{ours(name)}": value.clone() for name, value in model.state_dict().items()}
    model, inputs = model.double(), images.double().permute(0, 3, 1, 2)
    tensors["logits"] = model.eval()(inputs).detach().float()
    loss = F.cross_entropy(model.train()(inputs), labels)
    loss.backward()
    tensors["loss"] = loss.detach().float()
    tensors["gradient"] = model.blocks[0].units[0].conv.weight.grad.float()
    return tensors


def networks():
    config = dict(INITIAL)
    for step, change in enumerate(CHANGES):
        config |= change
        yield f"step{step}", dict(config)
    base = config | {"norm": "after-relu"}
    yield "after-relu", base
    yield "groups", config | {"groups": 2}


def main():
    torch.manual_seed(0)
    images, labels = torch.randn(BATCH, SIZE, SIZE, 3), torch.randint(0, CLASSES, (BATCH,))
    tensors, metadata = {"images": images, "labels": labels}, {"script": SCRIPT, "torch": torch.__version__}
    for name, config in networks():
        full = sum(p.numel() for p in Net(config, 100).parameters())
        small = config | {"width": 0.125 if config["kernel"] == 3 else 0.5, "input_size": SIZE}
        tensors |= {f"{name}.{key}": value for key, value in golden(small, images, labels).items()}
        metadata[name] = json.dumps({"config": small, "num_parameters": full})
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "data/golden") / "ablation" / "small.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata=metadata)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
