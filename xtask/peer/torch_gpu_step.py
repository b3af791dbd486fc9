#!/usr/bin/env python3
"""The peer in PyTorch of `taper-check gpu`: trains on random images on the GPU for as long as each line it reads says.

python3 torch_gpu_step.py --model basenet --batch 256 --mode compile
Says `ready` once it is compiled and warm; then answers each line with a number of seconds by images per second.
channels_last, bf16 autocast, cuDNN's choice measured: what PyTorch's documentation advises for convolutions.
"""
import argparse
import contextlib
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
from _basenet import BaseNet  # noqa: E402

WARMUP = 10


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=["basenet", "resnet18", "resnet50"])
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--mode", required=True, choices=["eager", "compile"])
    return parser.parse_args()


def build(name):
    """Network, side of its images, number of classes."""
    if name == "basenet":
        config = {"width": 1.0, "depths": (3, 4, 6, 3), "residual_scale": 0.1, "input_size": 32}
        return BaseNet(config, 100), 32, 100
    import torchvision

    return getattr(torchvision.models, name)(num_classes=1000), 224, 1000


def training(args):
    model, side, num_classes = build(args.model)
    model = model.cuda().to(memory_format=torch.channels_last).train()
    if args.mode == "compile":
        model = torch.compile(model)
    images = torch.randn(args.batch, 3, side, side, device="cuda").contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch, device="cuda") % num_classes
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
    )

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main():
    args = parse()
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    # What compilers print must not be taken for an answer.
    with contextlib.redirect_stdout(sys.stderr):
        step = training(args)
        for _ in range(WARMUP):
            step()
    print("ready", flush=True)
    for line in sys.stdin:
        started, steps = time.perf_counter(), 0
        while steps == 0 or time.perf_counter() - started < float(line):
            step()
            steps += 1
        print(args.batch * steps / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
