#!/usr/bin/env python3
"""Makes data/fixtures/cifar_pickles: tiny files in the python form of CIFAR-100, for the tests of taper-data.

python3 xtask/golden/cifar_pickles.py data/fixtures/cifar_pickles
Made with Python 3.11 and numpy 2.4.6; needs: pip install numpy

`python2_*` are what the official files are: protocol 2 with Python 2's byte strings and numpy.core. `python3_protocol_N`
are what Python 3 and numpy 2 write. Byte `place` of image `record` is (7 * record + 13 * place) % 251 everywhere.
"""
import io
import pickle
import struct
import sys
from pathlib import Path

import numpy as np


class Python2Pickler(pickle._Pickler):
    """Writes str and bytes as Python 2's str."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_python2_str(self, text):
        encoded = text.encode("latin1") if isinstance(text, str) else text
        if len(encoded) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(encoded)]) + encoded)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(encoded)) + encoded)
        self.memoize(text)

    dispatch[str] = save_python2_str
    dispatch[bytes] = save_python2_str


def images(num_images, key):
    place = np.arange(3072)
    data = np.stack([(7 * record + 13 * place) % 251 for record in range(num_images)]).astype(np.uint8)
    fields = {
        "filenames": [f"image_{record}.png" for record in range(num_images)],
        "batch_label": "training batch 1 of 1",
        "fine_labels": [99 - record for record in range(num_images)],
        "coarse_labels": [19 - record for record in range(num_images)],
        "data": data,
    }
    return {key(name): value for name, value in fields.items()}


def meta():
    return {
        "fine_label_names": [f"fine_{index}" for index in range(100)],
        "coarse_label_names": [f"coarse_{index}" for index in range(20)],
    }


def as_python2(value):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "python2_train").write_bytes(as_python2(images(3, str)))
    (folder / "python2_test").write_bytes(as_python2(images(2, str)))
    (folder / "python2_meta").write_bytes(as_python2(meta()))
    for protocol in range(2, 6):
        made = pickle.dumps(images(2, lambda name: name.encode()), protocol=protocol)
        (folder / f"python3_protocol_{protocol}").write_bytes(made)
    fortran = images(2, str)
    fortran["data"] = np.asfortranarray(fortran["data"])
    (folder / "python3_fortran").write_bytes(pickle.dumps(fortran, protocol=4))


if __name__ == "__main__":
    main()
