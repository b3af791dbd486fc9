#!/usr/bin/env python3
"""Compares decode, resize, centre crop and normalise with torchvision's on the same photos, and says what differs.

cargo run --release -p taper-data --example prepare_photos -- OUT 224 bilinear FILE...
python3 xtask/peer/preprocess.py OUT 224 bilinear FILE...
Needs: pip install -r xtask/golden/requirements.txt

Differences are of bytes (0..255); those of normalised values are in standard deviations of ImageNet. Both programs on PNG
files that Pillow made of the photos show what scaling alone adds. Images a second are torchvision's, one thread.
"""
import sys
import time

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms import InterpolationMode

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main(out, side, interpolation, files):
    torch.set_num_threads(1)
    mode = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}[interpolation]
    scale = transforms.Compose([transforms.Resize(round(side / 0.875), mode, antialias=True), transforms.CenterCrop(side)])
    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    ours = np.fromfile(out, np.uint8).reshape(-1, side, side, 3)
    if len(ours) != len(files):
        sys.exit(f"{len(ours)} images in {out}, {len(files)} files")
    decoding = scaling = 0.0
    means, largest, normalised = [], 0, []
    for file, mine in zip(files, ours):
        started = time.perf_counter()
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        decoded = time.perf_counter()
        theirs = scale(image)
        decoding, scaling = decoding + decoded - started, scaling + time.perf_counter() - decoded
        difference = np.abs(np.asarray(theirs).astype(int) - mine.astype(int))
        means.append(difference.mean())
        largest = max(largest, difference.max())
        normalised.append((normalise(theirs) - normalise(Image.fromarray(mine))).abs().mean().item())
    count = len(files)
    print(f"{count} photos: mean absolute difference {np.mean(means):.4f}, of the worst photo {np.max(means):.4f}, largest of one byte {largest}")
    print(f"normalised: mean {np.mean(normalised):.5f}, of the worst photo {np.max(normalised):.5f}")
    print(f"torchvision: {count / (decoding + scaling):.0f} images/s: decoding {count / decoding:.0f}, scaling and cropping {count / scaling:.0f}")
    sys.exit(0 if np.max(means) <= 1.0 else 1)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
