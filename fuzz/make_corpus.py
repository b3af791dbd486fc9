#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets, always the same bytes: small files that lie, claim too much, or lead out.

Standard library alone. Run from anywhere: python3 fuzz/make_corpus.py
"""
import binascii
import io
import json
import pathlib
import pickle
import struct
import tarfile
import zipfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parent
DATA = ROOT.parent / "data"


def write(target, name, data):
    path = ROOT / "corpus" / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def make_safetensors():
    good = {"w": tensor([2, 2], [0, 16]), "b": tensor([2], [16, 24])}
    write("safetensors", "good", safetensors(good, bytes(24)))
    names = {f"{n}.{k}": tensor([2], [8 * i, 8 * i + 8]) for i, (n, k) in enumerate(
        (n, k) for n in ("bn1", "layer1.0.bn1") for k in ("weight", "bias", "running_mean", "running_var"))}
    write("safetensors", "names", safetensors(names, bytes(64)))
    write("safetensors", "header-longer-than-file", struct.pack("<Q", 1 << 40) + b"{}")
    write("safetensors", "header-of-all-ones", b"\xff" * 16)
    write("safetensors", "overlap", safetensors({"a": tensor([2], [0, 8]), "b": tensor([2], [4, 12])}, bytes(12)))
    write("safetensors", "gap", safetensors({"a": tensor([1], [4, 8])}, bytes(8)))
    write("safetensors", "huge-shape", safetensors({"a": tensor([1 << 62, 4], [0, 8])}, bytes(8)))
    write("safetensors", "backwards", safetensors({"a": tensor([2], [8, 0])}, bytes(8)))
    write("safetensors", "half-precision", safetensors({"a": tensor([2], [0, 4], "BF16"), "b": tensor([2], [4, 8], "F16")}, b"\x80\x7f\x00\x7c\x01\x00\x00\x80"))
    write("safetensors", "not-a-number", safetensors({"a": tensor([1], [0, 4])}, b"\x00\x00\xc0\x7f"))
    write("safetensors", "deep", safetensors(b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"))
    write("safetensors", "metadata", safetensors({"__metadata__": {"taper": "{}"}, "a": tensor([1], [0, 4])}, bytes(4)))


def torch_zip(pickled, storage=bytes(16)):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in (("m/data.pkl", pickled), ("m/byteorder", b"little"), ("m/data/0", storage)):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def torch_pickle(arguments):
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + arguments + b"\x89}tR"
    return b"\x80\x02}X\x01\0\0\0w" + call + b"s."


def make_torch():
    for path in sorted((DATA / "fixtures/torch_files").glob("*.pth")):
        write("torch", path.stem.replace("_", "-"), path.read_bytes())
    write("torch", "good", torch_zip(torch_pickle(b"K\0K\x04\x85K\x01\x85")))
    write("torch", "stride-of-zero", torch_zip(torch_pickle(b"K\0J\0\0\0\x40\x85K\0\x85")))
    write("torch", "negative-size", torch_zip(torch_pickle(b"K\0J\xff\xff\xff\xff\x85K\x01\x85")))
    write("torch", "calls-a-program", torch_zip(b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."))
    deflated = io.BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("m/data.pkl", (1980, 1, 1, 0, 0, 0)), bytes(1 << 20), zipfile.ZIP_DEFLATED)
    write("torch", "bomb", deflated.getvalue())
    # A directory at the end that claims 65,535 entries.
    write("torch", "many-entries", b"PK\5\6" + bytes(4) + b"\xff" * 4 + bytes(10))


def make_pickle():
    values = {"labels": [1, 2, 3], "names": ("a", "b"), b"data": b"\0\1\2", "none": None, "pi": 3.5, "big": 1 << 70}
    for protocol in range(2, 6):
        write("pickle", f"protocol-{protocol}", pickle.dumps(values, protocol))
    write("pickle", "itself", b"\x80\x02}q\0X\1\0\0\0ah\0s.")
    write("pickle", "long-string", b"\x80\x02X\xff\xff\xff\xffabc.")
    write("pickle", "marks", b"\x80\x02" + b"(" * 5000 + b".")
    write("pickle", "nested", b"\x80\x02" + b"]" * 2000 + b"a" * 1999 + b".")
    write("pickle", "doubled", b"\x80\x02]q\0" + b"h\0h\0\x86q\0" * 100 + b".")
    write("pickle", "program", b"\x80\x02cposix\nsystem\nX\2\0\0\0id\x85R.")


def tar(entries, form=tarfile.USTAR_FORMAT, headers=None):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, kind, data, link in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mtime = kind, len(data), link, 0
            info.pax_headers = headers or {}
            archive.addfile(info, io.BytesIO(data))
    # What follows the two closing blocks is padding.
    return out.getvalue().rstrip(b"\0") + bytes(1024)


def make_archives():
    record = bytes([3, 7]) + bytes(range(256)) * 12
    file, link, hard, folder, device = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE
    cifar = [("cifar-100-binary/train.bin", file, record * 2, ""), ("cifar-100-binary/test.bin", file, record, "")]
    python = [(f"cifar-100-python/{name}", file, (DATA / "fixtures/cifar_pickles" / f"python2_{name}").read_bytes(), "")
              for name in ("train", "test", "meta")]
    cases = {
        "binary": cifar,
        "python": python,
        "cut-record": [("cifar-100-binary/train.bin", file, record[:-5], ""), cifar[1]],
        "label-out-of-range": [("cifar-100-binary/train.bin", file, bytes([3, 200]) + record[2:], ""), cifar[1]],
        "up": [("../../evil.bin", file, b"evil", "")],
        "absolute": [("/tmp/taper-fuzz-evil.bin", file, b"evil", "")],
        "link-out": [("out", link, b"", "/tmp"), ("out/evil.bin", file, b"evil", "")],
        "hard-link": [("train.bin", hard, b"", "/etc/passwd")],
        "device": [("null", device, b"", "")],
        "folder-then-file": [("a", folder, b"", ""), ("a/b/c/train.bin", file, record, ""), ("a", file, b"x", "")],
        "twice": [cifar[0], cifar[0]],
        "empty": [],
    }
    for name, entries in cases.items():
        for target in ("cifar", "unpack"):
            write(target, name, tar(entries))
    long = [("a/" * 80 + "long.bin", file, b"long", "")]
    one = [("train.bin", file, b"1234", "")]
    extended = {
        "gnu-long-name": tar(long, tarfile.GNU_FORMAT),
        "pax-long-name": tar(long, tarfile.PAX_FORMAT),
        "pax-up": tar(one, tarfile.PAX_FORMAT, {"path": "../../evil.bin"}),
        "pax-size": tar(one, tarfile.PAX_FORMAT, {"size": "99999999999"}),
        "claims-8-gib": with_fields(tar(one), {124: b"77777777777\0"}),
        # GNU's old form: one piece of four bytes at the end of 8 GiB of nothing.
        "sparse": with_fields(tar(one), {156: b"S", 257: b"ustar  \0", 386: b"77777777770\0" + b"00000000004\0", 483: b"77777777774\0"}),
    }
    for name, data in extended.items():
        for target in ("cifar", "unpack"):
            write(target, name, data)


def with_fields(archive, fields):
    """Overwrites fields of the first header, and puts its checksum right."""
    out = bytearray(archive)
    for at, value in fields.items():
        out[at:at + len(value)] = value
    out[148:156] = b" " * 8
    out[148:156] = b"%06o\0 " % sum(out[:512])
    return bytes(out)


def png(width, height, depth=8, colour=2, data=None):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", binascii.crc32(kind + body))

    if data is None:
        data = b"".join(b"\0" + bytes(3 * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def make_images():
    write("image", "good.png", png(4, 4))
    write("image", "cut.png", png(4, 4)[:-20])
    write("image", "bomb.png", png(30000, 30000, data=bytes(1 << 16)))
    write("image", "longest.png", png(0x7FFFFFFF, 0x7FFFFFFF, data=b""))
    write("image", "no-side.png", png(0, 4, data=b""))
    bmp = b"BM" + struct.pack("<IHHI", 70, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 24, 0, 16, 0, 0, 0, 0) + bytes(16)
    write("image", "good.bmp", bmp)
    write("image", "upside-down.bmp", bmp[:22] + struct.pack("<i", -(1 << 31)) + bmp[26:])
    gif = b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + b"," + struct.pack("<HHHHB", 0, 0, 2, 2, 0) + b"\x02\x03\x44\x02\x05\x00;"
    write("image", "good.gif", gif)
    write("image", "frame-outside.gif", gif.replace(b"," + struct.pack("<HHHH", 0, 0, 2, 2), b"," + struct.pack("<HHHH", 65000, 65000, 65535, 65535)))
    write("image", "huge.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:])
    webp = b"VP8L" + struct.pack("<I", 13) + b"\x2f\x01\x40\x00\x00\x07\x10\x11\x11\x88\x88\xfe\x07\0"
    write("image", "small.webp", b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp)
    jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + b"\xff\xdb\0\x43\0" + b"\1" * 64
    jpeg += b"\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0" + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\0\xff\xd9"
    write("image", "claims-65535.jpg", jpeg)
    write("image", "segments-without-end.jpg", b"\xff\xd8" + b"\xff\xe1\xff\xff" * 8)
    write("image", "page.html", b"<!DOCTYPE html><html><body>404</body></html>")
    write("image", "empty", b"")


def make_texts():
    for path in sorted((DATA / "recipes").glob("*.toml")):
        write("config", path.stem, path.read_bytes())
    write("config", "numbers", b"[train]\nepochs = 9223372036854775807\nbatch_size = -1\nseed = 1e400\n")
    write("config", "deep", b"[data]\nx = " + b"[" * 500 + b"]" * 500)
    progress = {"step": 7, "epoch": 0, "batch_in_epoch": 7, "best": None, "epochs_without_best": 0, "is_complete": False, "elapsed_seconds": 1.5}
    tally = {"num_images": 1, "num_top1": 1, "num_top5": 1, "loss_sum": 0.5}
    throughput = {"num_images": 1, "busy": {"secs": 1, "nanos": 5}}
    for kind in ("epoch", "window"):
        progress[f"{kind}_tally"], progress[f"{kind}_throughput"] = tally, throughput
    sums = {name: {"bytes": 3, "sha256": "0" * 64} for name in ("model.safetensors", "state.safetensors")}
    write("manifest", "checkpoint", json.dumps({"progress": progress, "files": sums}).encode())
    write("manifest", "large-numbers", json.dumps({"progress": dict(progress, step=1 << 64, elapsed_seconds=1e308), "files": sums}).encode())
    write("manifest", "split", json.dumps({"train": ["train/00000"], "val": ["train/00000"], "test": []}).encode())
    preprocess = {"input_size": [0, 224], "resize": 0, "crop_pct": 0.875, "interpolation": "bilinear", "mean": [0, 0, 0], "std": [0, 1, 1]}
    write("manifest", "preprocess", json.dumps(preprocess).encode())
    write("manifest", "model", json.dumps({"name": "basenet", "width": 1e300, "depths": [1, 1, 1, 1 << 40], "residual_scale": 0.1, "shortcut": "conv1x1", "groups": 0, "input_size": 1 << 40}).encode())
    line = json.dumps({"epoch": 0, "step": 5, "lr": 0.1, "loss": 1.0, "top1": 0.1, "grad_norm": 1.0, "images_per_second": 1.0, "elapsed_seconds": 1.0}).encode()
    later = line.replace(b'"step": 5', b'"step": 15')
    write("records", "whole", line + b"\n" + later + b"\n")
    write("records", "torn", line + b"\n" + later[:30])
    write("records", "zeros", line + b"\n" + bytes(50) + b"\n" + bytes(9))
    write("records", "foreign", b"hello\n")


if __name__ == "__main__":
    make_safetensors()
    make_torch()
    make_pickle()
    make_archives()
    make_images()
    make_texts()
