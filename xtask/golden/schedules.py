#!/usr/bin/env python3
"""Writes data/golden/optim/schedules.json: learning rates of PyTorch's schedulers, step by step.

Run from the repository root: python3 xtask/golden/schedules.py
Needs: pip install -r xtask/golden/requirements.txt
"""
import json
import sys
from pathlib import Path

import torch
from torch.optim import lr_scheduler

SCRIPT = "xtask/golden/schedules.py"
STEPS, STEPS_PER_EPOCH, LR = 40, 10, 0.4


def one_cycle(optimizer):
    return lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=STEPS, pct_start=0.3, cycle_momentum=False)


def rates(make):
    """The rate that each step uses."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler, seen = make(optimizer), []
    for step in range(STEPS):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        # OneCycleLR refuses a step behind its last.
        if step + 1 < STEPS:
            scheduler.step()
    return seen


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data/golden") / "optim"
    folder.mkdir(parents=True, exist_ok=True)
    cases = [
        ({"name": "constant"}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (
            {"name": "step", "every_epochs": 2, "gamma": 0.1},
            lambda o: lr_scheduler.StepLR(o, step_size=2 * STEPS_PER_EPOCH, gamma=0.1),
        ),
        ({"name": "cosine", "final_fraction": 0.0}, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS)),
        (
            {"name": "cosine", "final_fraction": 0.05},
            lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS, eta_min=0.05 * LR),
        ),
        (
            {"name": "one-cycle", "peak": 0.3, "initial_divisor": 25.0, "final_divisor": 1e4},
            one_cycle,
        ),
    ]
    golden = {
        "script": SCRIPT,
        "torch": torch.__version__,
        "num_steps": STEPS,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "lr": LR,
        "cases": [{"schedule": schedule, "rates": rates(make)} for schedule, make in cases],
    }
    (folder / "schedules.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
