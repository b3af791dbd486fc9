#!/usr/bin/env python3
"""Writes data/golden/train/class_weights.json: PyTorch's weighted cross-entropy with label smoothing, and its gradient.

Run from the repository root: python3 xtask/golden/class_weights.py
Needs: pip install -r xtask/golden/requirements.txt

Computed in f64 from inputs that are exact in f32.
"""
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

SCRIPT = "xtask/golden/class_weights.py"


def case(labels, weights, label_smoothing, generator):
    logits = torch.randn(len(labels), len(weights), generator=generator) * 3
    leaf = logits.double().requires_grad_()
    weight = torch.tensor(weights, dtype=torch.float32).double()
    loss = F.cross_entropy(leaf, torch.tensor(labels), weight=weight, label_smoothing=label_smoothing)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return {
        "logits": logits.tolist(),
        "labels": labels,
        "weights": weights,
        "label_smoothing": label_smoothing,
        "loss": loss.item(),
        "gradient": gradient.flatten().tolist(),
    }


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data/golden") / "train"
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    batches = [
        ([0, 1, 2, 1], [1.0, 1.0, 1.0]),
        ([0, 0, 2, 1, 0], [0.25, 2.0, 5.0]),
        ([3, 3, 3], [1.0, 2.0, 3.0, 0.125]),
    ]
    cases = [case(*batch, smoothing, generator) for batch in batches for smoothing in (0.0, 0.1)]
    golden = {"script": SCRIPT, "torch": torch.__version__, "cases": cases}
    (folder / "class_weights.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
