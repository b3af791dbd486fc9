#!/usr/bin/env python3
"""Repeats a run of `taper finetune` in PyTorch: the same weights, split, preprocessing and settings, another order.

python3 xtask/peer/finetune.py RUN DATA WEIGHTS.safetensors [SEED...]
RUN gives config.toml, split.json, classes.json and preprocess.json; WEIGHTS are ResNet-18's in torchvision's names.
Without a seed, the run's own is used. Prints the best and the last val top-1, and the seconds it took.
Needs: pip install -r xtask/golden/requirements.txt pillow
"""
import json
import sys
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2


def read(run, name):
    return json.loads((Path(run) / name).read_text())


def images_of(names, classes, data, preprocess):
    """All images as bytes `[n, 3, h, w]`, and their labels."""
    size, resize = preprocess["input_size"], preprocess["resize"]
    transform = v2.Compose([v2.Resize(resize or size, antialias=True), v2.CenterCrop(size)])
    images = torch.stack([transform(v2.functional.pil_to_tensor(Image.open(Path(data) / name).convert("RGB"))) for name in names])
    return images, torch.tensor([classes.index(Path(name).parent.name) for name in names])


def optimizer_of(model, config):
    """SGD with two groups, decayed and not; the backbone at its own rate."""
    optim, groups = config["optim"], []
    assert optim["name"] == "sgd" and optim["layer_decay"] == 1.0 and not optim["groups"], "not repeated here"
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = 1.0 if name.startswith("fc.") else optim["backbone_lr_scale"]
            decay = optim["weight_decay"] if parameter.ndim > 1 or optim["decay_norms_and_biases"] else 0.0
            groups.append({"params": [parameter], "lr": optim["lr"] * scale, "weight_decay": decay})
    return torch.optim.SGD(groups, lr=optim["lr"], momentum=optim["momentum"], nesterov=optim["nesterov"])


def schedule_of(optimizer, config, num_steps):
    schedule = config["schedule"]
    num_warmup = round(schedule["warmup"] * num_steps)

    def scale(step):
        if step < num_warmup:
            return (step + 1) / num_warmup
        if schedule["name"] == "constant":
            return 1.0
        progress = torch.tensor((step - num_warmup) / max(num_steps - num_warmup, 1) * torch.pi)
        return schedule["final_fraction"] + (1 - schedule["final_fraction"]) * 0.5 * (1 + progress.cos().item())

    return torch.optim.lr_scheduler.LambdaLR(optimizer, scale)


def train(config, weights, parts, normalise, num_classes, seed):
    torch.manual_seed(seed)
    model = torchvision.models.resnet18(num_classes=num_classes)
    model.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}, strict=False)
    is_head_only = config["train"]["freeze"] == "backbone"
    assert is_head_only or config["train"]["freeze"] == "none", "not repeated here"
    (train_images, train_labels), (val_images, val_labels) = parts
    if is_head_only:
        body = torch.nn.Sequential(*list(model.children())[:-1], torch.nn.Flatten()).eval().requires_grad_(False)
        with torch.no_grad():
            encode = lambda images: torch.cat([body(normalise(chunk)) for chunk in images.split(32)])
            train_inputs, val_inputs = encode(train_images), encode(val_images)
        forward = model.fc
    else:
        train_inputs, val_inputs = train_images, val_images
        forward = lambda images: model(normalise(images))
    settings, flip = config["train"], config["augment"]["flip"]
    size = settings["batch_size"]
    per_epoch = len(train_labels) // size if settings["drop_last"] else -(-len(train_labels) // size)
    optimizer = optimizer_of(model, config)
    schedule = schedule_of(optimizer, config, per_epoch * settings["epochs"])
    top1 = []
    for _ in range(settings["epochs"]):
        model.train(not is_head_only)
        order = torch.randperm(len(train_labels))
        for rows in order.split(size)[:per_epoch]:
            inputs = train_inputs[rows]
            if not is_head_only:
                flipped = torch.rand(len(rows)) < flip
                inputs = torch.where(flipped[:, None, None, None], inputs.flip(3), inputs)
            loss = F.cross_entropy(forward(inputs), train_labels[rows], label_smoothing=settings["label_smoothing"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            guess = torch.cat([forward(chunk).argmax(1) for chunk in val_inputs.split(64)])
        top1.append((guess == val_labels).float().mean().item())
    return top1


def main(run, data, weights, *seeds):
    config = tomllib.loads((Path(run) / "config.toml").read_text())
    split, classes, preprocess = (read(run, name) for name in ("split.json", "classes.json", "preprocess.json"))
    mean, std = (torch.tensor(preprocess[key])[:, None, None] for key in ("mean", "std"))
    normalise = lambda images: (images / 255 - mean) / std
    torch.set_num_threads(2)
    started = time.time()
    parts = [images_of(split[part], classes, data, preprocess) for part in ("train", "val")]
    decoded = time.time() - started
    tensors = load_file(weights)
    for seed in [int(seed) for seed in seeds] or [config["train"]["seed"]]:
        started = time.time()
        top1 = train(config, tensors, parts, normalise, len(classes), seed)
        seconds = time.time() - started
        print(f"seed {seed}: best val top-1 {max(top1):.4f}, last {top1[-1]:.4f}; {decoded:.1f} s to decode, {seconds:.1f} s to train")


if __name__ == "__main__":
    main(*sys.argv[1:])
