#!/usr/bin/env python3
"""Writes data/golden/resnet/small.safetensors: logits, losses and gradients of tiny ResNets in PyTorch.

Run from the repository root: python3 xtask/golden/resnet.py
Needs: pip install -r xtask/golden/requirements.txt

Blocks, stages and the forward pass are torchvision's own; only the widths are ours, which its constructor fixes. The
third network has timm's "ResNet-D" stem and shortcuts, and odd sizes on its way. Each has one block a stage and random
weights and running statistics. The file holds, under each network's name: `weights.*`; the logits in evaluation mode;
the mean cross-entropy of the same batch in training mode and, from it, some gradients. Images are channels-last.
Everything is computed in f64 and rounded, so that the file does not depend on the order of PyTorch's sums.

What a test of real weights expects of them is printed by
    python3 xtask/golden/resnet.py --weights $TAPER_TEST_DATA/weights
"""
import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

SCRIPT = "xtask/golden/resnet.py"
BATCH, SIZE, ODD_SIZE, CLASSES = 4, 32, 28, 5
GRADIENTS = ["layer1.0.bn1.weight", "layer2.0.conv2.weight", "layer3.0.bn2.bias", "fc.weight", "fc.bias"]


class Tiny(ResNet):
    """torchvision's ResNet of another width."""

    def __init__(self, block, width):
        nn.Module.__init__(self)
        self._norm_layer, self.groups, self.base_width, self.dilation = nn.BatchNorm2d, 1, 64, 1
        self.inplanes = width
        self.conv1 = self.stem(width)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, width, 1)
        self.layer2 = self._make_layer(block, 2 * width, 1, stride=2)
        self.layer3 = self._make_layer(block, 4 * width, 1, stride=2)
        self.layer4 = self._make_layer(block, 8 * width, 1, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width * block.expansion, CLASSES)

    def stem(self, width):
        return nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)


class TinyD(Tiny):
    """With the stem and the shortcuts of timm's resnet*d."""

    def stem(self, width):
        conv = lambda c_in, c_out, stride: nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        norm = lambda: nn.BatchNorm2d(width // 2)
        narrow = [conv(3, width // 2, 2), norm(), nn.ReLU(), conv(width // 2, width // 2, 1), norm(), nn.ReLU()]
        return nn.Sequential(*narrow, conv(width // 2, width, 1))

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        stage = super()._make_layer(block, planes, blocks, stride, dilate)
        if stage[0].downsample is not None:
            conv, norm = stage[0].downsample
            pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            conv = nn.Conv2d(conv.in_channels, conv.out_channels, 1, bias=False)
            stage[0].downsample = nn.Sequential(pool, conv, norm)
        return stage


def randomise(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):
                nn.init.uniform_(values, low, high)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            module.num_batches_tracked.fill_(7)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def golden(model, images, labels):
    randomise(model)
    tensors = {f"weights.{name}": value.clone() for name, value in model.state_dict().items()}
    model, inputs = model.double(), images.double().permute(0, 3, 1, 2)
    tensors["logits"] = model.eval()(inputs).detach().float()
    loss = F.cross_entropy(model.train()(inputs), labels)
    loss.backward()
    tensors["loss"] = loss.detach().float()
    # The first of the stem's convolutions has another name in each of the two stems.
    first = next(name for name, _ in model.named_parameters())
    parameters = dict(model.named_parameters())
    downsample = [name for name in parameters if name.startswith("layer4.0.downsample")]
    for name in [first, *GRADIENTS, *downsample]:
        tensors[f"gradients.{name}"] = parameters[name].grad.float()
    return tensors


def write(path):
    torch.manual_seed(0)
    images = torch.randn(BATCH, SIZE, SIZE, 3)
    labels = torch.randint(0, CLASSES, (BATCH,))
    networks = {
        "basic": (Tiny(BasicBlock, 2), images),
        "bottleneck": (Tiny(Bottleneck, 2), images),
        "resnet_d": (TinyD(BasicBlock, 4), images[:, :ODD_SIZE, :ODD_SIZE]),
    }
    tensors = {"images": images, "labels": labels}
    for name, (model, inputs) in networks.items():
        tensors |= {f"{name}.{key}": value for key, value in golden(model, inputs, labels).items()}
    metadata = {"script": SCRIPT, "torch": torch.__version__, "torchvision": torchvision.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata=metadata)
    print(path, path.stat().st_size, "bytes")


def print_logits(weights):
    """The first logits and the largest one for the image that the Rust test draws, 64 pixels square."""
    pixels = [((index * 37 % 101) - 50) / 30 for index in range(64 * 64 * 3)]
    image = torch.tensor(pixels, dtype=torch.float32).reshape(1, 64, 64, 3).permute(0, 3, 1, 2)
    for name in ("resnet18", "resnet50"):
        model = getattr(torchvision.models, name)()
        model.load_state_dict(load_file(weights / f"{name}_imagenet.safetensors"))
        logits = model.double().eval()(image.double())[0]
        print(name, [round(logit, 6) for logit in logits[:3].tolist()], logits.argmax().item(), f"{logits.max().item():.6f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("golden", nargs="?", default="data/golden")
    parser.add_argument("--weights", metavar="FOLDER")
    args = parser.parse_args()
    if args.weights:
        print_logits(Path(args.weights))
    else:
        write(Path(args.golden) / "resnet" / "small.safetensors")


if __name__ == "__main__":
    main()
