"""BaseNet in PyTorch: the module whose state_dict taper's files fit, for goldens and peers."""
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, c_in, c_out, scale):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False) if c_in != c_out else nn.Identity()
        self.scale = scale

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return self.shortcut(x) + self.scale * F.relu(self.bn2(self.conv2(y)))


class BaseNet(nn.Module):
    """The network of a taper configuration: keys `width`, `depths`, `residual_scale`, `input_size`."""

    def __init__(self, config, num_classes):
        super().__init__()
        stem, *stages = (max(1, int(c * config["width"])) for c in (64, 64, 128, 256, 512))
        self.stem = nn.Module()
        self.stem.conv = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.stem.bn = nn.BatchNorm2d(stem)
        self.stages, c_in = nn.ModuleList(), stem
        for c_out, depth in zip(stages, config["depths"]):
            ins = [c_in if index == 0 else c_out for index in range(depth)]
            self.stages.append(nn.Sequential(*(Block(c, c_out, config["residual_scale"]) for c in ins)))
            c_in = c_out if depth else c_in
        self.head = nn.Module()
        self.head.fc1 = nn.Linear(c_in * (config["input_size"] // 2) ** 2, 50)
        self.head.fc2 = nn.Linear(50, num_classes)
        self.head.bn = nn.BatchNorm1d(num_classes)

    def forward(self, x):
        x = F.relu(self.stem.bn(self.stem.conv(x)))
        for stage in self.stages:
            x = stage(x)
        x = F.max_pool2d(x, 2).flatten(1)
        return self.head.bn(self.head.fc2(F.relu(self.head.fc1(x))))
