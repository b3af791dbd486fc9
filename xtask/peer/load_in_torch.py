#!/usr/bin/env python3
"""Loads a run's model.safetensors into PyTorch, strictly, and compares logits with `taper predict --logits`.

python3 xtask/peer/load_in_torch.py RUN PREDICTIONS.csv
PREDICTIONS.csv comes from: taper predict RUN FOLDER --logits --csv PREDICTIONS.csv, over PNG files of the input size.
Needs: pip install -r xtask/golden/requirements.txt pillow
"""
import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
from _basenet import BaseNet  # noqa: E402


def main(run, predictions):
    path = Path(run) / "model.safetensors"
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["taper"])
    model = BaseNet(card["architecture"], len(card["classes"]))
    model.load_state_dict(load_file(path), strict=True)
    model.eval()
    mean, std = (torch.tensor(card["preprocessing"][key]) for key in ("mean", "std"))
    worst, largest, same, count = 0.0, 0.0, 0, 0
    for row in csv.DictReader(open(predictions)):
        pixels = torch.from_numpy(np.asarray(Image.open(row["path"]).convert("RGB")).copy()).float() / 255
        with torch.no_grad():
            theirs = model(((pixels - mean) / std).permute(2, 0, 1)[None])[0]
        ours = torch.tensor([float(row[f"logit_{index}"]) for index in range(len(theirs))])
        worst, largest = max(worst, (ours - theirs).abs().max().item()), max(largest, theirs.abs().max().item())
        same += int(theirs.argmax().item() == int(row["class_index"]))
        count += 1
    print(f"strict load: ok; {count} images; same class {same}; largest |logit| {largest:.4f}; largest difference {worst:.2e} = {worst / largest:.2e} of it")
    sys.exit(0 if count and same == count and worst <= 1e-4 * largest else 1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
