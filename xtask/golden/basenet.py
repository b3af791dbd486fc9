#!/usr/bin/env python3
"""Writes data/golden/basenet/small.safetensors: twenty training steps of a small BaseNet in PyTorch.

Run from the repository root: python3 xtask/golden/basenet.py
The full network, once and by hand (370 MB, not committed; a slow test reads it from $TAPER_TEST_DATA/golden):
    python3 xtask/golden/basenet.py --full FOLDER
Needs: pip install -r xtask/golden/requirements.txt

A file holds the first weights, one batch of images a step (channels-last) with labels, the loss of every step, the
logits of the first batch in evaluation mode before and after training, and the configuration in its metadata.
The small net computes in f64, so that the file does not depend on the order of PyTorch's sums.
"""
import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from _basenet import BaseNet  # noqa: E402

SCRIPT = "xtask/golden/basenet.py"
STEPS, LR, MOMENTUM, DECAY = 20, 0.05, 0.9, 5e-4
SMALL = {"width": 0.0625, "depths": [1, 1, 1, 1], "residual_scale": 0.1, "input_size": 8}
FULL = {"width": 1.0, "depths": [3, 4, 6, 3], "residual_scale": 0.1, "input_size": 32}


def optimizer(model):
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM, nesterov=True)


def golden(config, num_classes, batch, dtype):
    torch.manual_seed(0)
    model = BaseNet(config, num_classes)
    tensors = {f"weights.{name}": value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(STEPS, batch, config["input_size"], config["input_size"], 3)
    # The label shows in the image, so that there is something to learn.
    labels = torch.randint(0, num_classes, (STEPS, batch))
    images += labels[:, :, None, None, None] / num_classes
    model, inputs = model.to(dtype), images.to(dtype).permute(0, 1, 4, 2, 3)
    logits = lambda: model.eval()(inputs[0]).detach().float()
    before, update, losses = logits(), optimizer(model), []
    for x, y in zip(inputs, labels):
        loss = F.cross_entropy(model.train()(x), y)
        update.zero_grad()
        loss.backward()
        update.step()
        losses.append(loss.item())
        print(f"step {len(losses)} loss {losses[-1]:.6f}", flush=True)
    parameters = sum(p.numel() for p in model.parameters())
    tensors |= {"images": images, "labels": labels, "losses": torch.tensor(losses), "logits_before": before, "logits_after": logits()}
    metadata = {"script": SCRIPT, "torch": torch.__version__, "config": json.dumps(config), "num_parameters": str(parameters)}
    return {name: value.contiguous() for name, value in tensors.items()}, metadata


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("golden", nargs="?", default="data/golden")
    parser.add_argument("--full", metavar="FOLDER")
    args = parser.parse_args()
    if args.full:
        path = Path(args.full) / "basenet-full.safetensors"
        tensors, metadata = golden(FULL, 100, 8, torch.float32)
    else:
        path = Path(args.golden) / "basenet" / "small.safetensors"
        tensors, metadata = golden(SMALL, 10, 8, torch.float64)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
