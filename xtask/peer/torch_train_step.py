#!/usr/bin/env python3
"""The peer in PyTorch of `taper-check step`: the same steps on random images, one JSON object on standard output.

python3 xtask/peer/torch_train_step.py --model basenet --width 0.125 --batch 64 --threads 2
Keys and options are those of `taper-check step`. Needs: pip install -r xtask/peer/requirements.txt
"""
import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
from _basenet import BaseNet  # noqa: E402


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=["basenet", "resnet18", "resnet50"])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--mode", default="train", choices=["train", "eval"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    return parser.parse_args()


def build(args):
    """Network, side of its images, number of classes."""
    if args.model == "basenet":
        config = {"width": args.width, "depths": (3, 4, 6, 3), "residual_scale": 0.1, "input_size": 32}
        return BaseNet(config, 100), 32, 100
    import torchvision

    return getattr(torchvision.models, args.model)(num_classes=1000), 224, 1000


def training(model, images, labels, autocast):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def evaluation(model, images, labels, autocast):
    def step():
        with torch.inference_mode(), autocast():
            return F.cross_entropy(model(images), labels).item()

    return step


def peak_memory_bytes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes but for macOS


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, side, num_classes = build(args)
    # channels_last is what PyTorch's documentation advises for convolutions on a CPU.
    model = model.to(memory_format=torch.channels_last).train(args.mode == "train")
    images = torch.randn(args.batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch) % num_classes
    make = training if args.mode == "train" else evaluation
    step = make(model, images, labels, lambda: torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bf16"))
    seconds, losses = [], []
    for _ in range(args.warmup + args.steps):
        started = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - started)
    seconds = seconds[args.warmup :]
    print(json.dumps({
        "kind": "step",
        "implementation": "torch",
        "torch": torch.__version__,
        **vars(args),
        "input_size": side,
        "step_seconds": seconds,
        "images_per_second": args.batch / statistics.median(seconds),
        "peak_memory_bytes": peak_memory_bytes(),
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }))


if __name__ == "__main__":
    main()
