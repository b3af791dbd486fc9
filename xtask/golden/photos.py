#!/usr/bin/env python3
"""Writes data/golden/photos/{decode,transforms}.safetensors: photo files as Pillow writes and reads them, and what
torchvision's transforms make of an image.

Run from the repository root: python3 xtask/golden/photos.py
Needs: pip install -r xtask/golden/requirements.txt

decode: `NAME.file` holds the bytes of a file, `NAME.rgb` [h, w, 3] what Pillow reads from it, upright and as RGB.
transforms: `NAME` [h, w, 3] is the result on the image whose byte in row r, column c, channel k is given by `formula`.
"""
import io
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image, ImageOps
from safetensors.numpy import save_file
from torchvision.transforms import InterpolationMode

SCRIPT = "xtask/golden/photos.py"


def formula(height, width):
    """Slopes, waves and sharp edges; integers only, so that any language computes the same bytes."""
    row, column, channel = np.ogrid[:height, :width, :3]
    slope = (row * 3 + column * 2 + channel * 40) % 256
    wave = (row * row + column * (channel + 1)) // 8 % 64
    edge = np.where((row // 16 + column // 12) % 2 == 0, 0, 90)
    return ((slope + wave + edge) // 2 % 256).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif.tobytes()}


def chunk(kind, data):
    import zlib

    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(values):
    """An RGB PNG of 16 bits a channel, which Pillow reads but does not write. values: [h, w, 3] uint16."""
    import zlib

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files():
    rgb = Image.fromarray(formula(37, 51))
    alpha = Image.fromarray(formula(37, 51)[:, :, 0])
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    grey_alpha = Image.merge("LA", (rgb.convert("L"), alpha))
    palette = rgb.quantize(16)
    frames = [Image.fromarray(np.roll(formula(37, 51), shift, axis=1)).quantize(32) for shift in (0, 9)]
    made = {
        "jpeg_444": encoded(rgb, "JPEG", quality=90, subsampling=0),
        "jpeg_422": encoded(rgb, "JPEG", quality=90, subsampling=1),
        "jpeg_420": encoded(rgb, "JPEG", quality=90, subsampling=2),
        "jpeg_progressive": encoded(rgb, "JPEG", quality=75, progressive=True),
        "jpeg_grey": encoded(rgb.convert("L"), "JPEG", quality=90),
        "jpeg_cmyk": encoded(rgb.convert("CMYK"), "JPEG", quality=95, subsampling=0),
        "png_rgba": encoded(rgba, "PNG"),
        "png_grey_alpha": encoded(grey_alpha, "PNG"),
        "png_palette": encoded(palette, "PNG", transparency=3),
        "png_1x1": encoded(rgb.crop((5, 7, 6, 8)), "PNG"),
        "jpeg_1x1": encoded(rgb.crop((5, 7, 6, 8)), "JPEG", quality=95),
        "png_16_bit": png_of_16_bits(formula(37, 51).astype(np.uint16) * 257),
        "gif": encoded(palette, "GIF"),
        "gif_animated": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "webp": encoded(rgb, "WEBP", quality=80),
        "webp_lossless": encoded(rgba, "WEBP", lossless=True, exact=True),
        "webp_animated": encoded(rgb, "WEBP", lossless=True, save_all=True, append_images=[ImageOps.flip(rgb)]),
        "bmp": encoded(rgb, "BMP"),
        "png_orientation_6": encoded(rgb, "PNG", **with_orientation(6)),
        "webp_orientation_8": encoded(rgb, "WEBP", lossless=True, **with_orientation(8)),
    }
    for orientation in range(1, 9):
        options = with_orientation(orientation)
        made[f"jpeg_orientation_{orientation}"] = encoded(rgb, "JPEG", quality=90, subsampling=0, **options)
    return made


def decoded():
    tensors = {}
    for name, file in files().items():
        tensors[f"{name}.file"] = np.frombuffer(file, np.uint8)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
        tensors[f"{name}.rgb"] = np.asarray(image).copy()
    return tensors


def transformed():
    image = Image.fromarray(formula(150, 201))
    small = Image.fromarray(formula(20, 31))
    filters = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
    tensors = {}
    for name, interpolation in filters.items():
        scaled = F.resize(image, [64], interpolation=interpolation, antialias=True)
        tensors[f"eval_{name}"] = F.center_crop(scaled, [56, 56])
        tensors[f"enlarged_{name}"] = F.resize(small, [45], interpolation=interpolation, antialias=True)
        box = {"top": 17, "left": 30, "height": 90, "width": 101}
        tensors[f"resized_crop_{name}"] = F.resized_crop(image, **box, size=[48, 40], interpolation=interpolation)
    bytes_chw = torch.from_numpy(formula(40, 40)).permute(2, 0, 1)
    adjust = {"brightness": F.adjust_brightness, "contrast": F.adjust_contrast, "saturation": F.adjust_saturation, "hue": F.adjust_hue}
    for name, factors in {"brightness": (0.6, 1.7), "contrast": (0.3, 1.8), "saturation": (0.0, 1.9), "hue": (-0.3, 0.1, 0.5)}.items():
        for factor in factors:
            tensors[f"{name}_{factor}"] = adjust[name](bytes_chw, factor).permute(1, 2, 0).contiguous().numpy()
    return {name: np.ascontiguousarray(np.asarray(tensor)) for name, tensor in tensors.items()}


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data/golden") / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(decoded(), folder / "decode.safetensors", metadata={"script": SCRIPT})
    save_file(transformed(), folder / "transforms.safetensors", metadata={"script": SCRIPT})


if __name__ == "__main__":
    main()
