#!/usr/bin/env python3
"""Writes data/golden/kernels/*.safetensors: inputs, results and gradients of the ops in PyTorch.

Run from the repository root: python3 xtask/golden/kernels.py
Needs: pip install -r xtask/golden/requirements.txt

Everything but the updates is computed in f64 from inputs that are exact in f32, then rounded, so that a file
does not depend on PyTorch's choice of algorithm. Activations are stored channels-last, as taper keeps them.
The metadata of each file names this script and lists its cases, one JSON object each.
"""
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

FOLDER = Path("data/golden/kernels")
SCRIPT = "xtask/golden/kernels.py"


class Golden:
    def __init__(self, name, seed):
        self.name, self.tensors, self.cases = name, {}, []
        self.random = np.random.default_rng(seed)

    def noise(self, *shape):
        values = self.random.uniform(-1, 1, shape).astype(np.float32)
        return torch.from_numpy(values).double()

    def add(self, case, **tensors):
        self.cases.append(case)
        for name, tensor in tensors.items():
            values = tensor.detach().to(torch.float32).contiguous().numpy()
            self.tensors[f"{case['name']}.{name}"] = values

    def run(self, case, function, leaves, **constants):
        """Adds a case with the result, the gradient that reaches it, and the gradients of the leaves."""
        leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items() if leaf is not None}
        y = function(**leaves)
        dy = self.noise(*y.shape)
        gradients = torch.autograd.grad(y, list(leaves.values()), dy)
        gradients = {f"d{name}": gradient for name, gradient in zip(leaves, gradients)}
        self.add(case, **leaves, **constants, y=y, dy=dy, **gradients)

    def save(self):
        FOLDER.mkdir(parents=True, exist_ok=True)
        metadata = {"script": SCRIPT, "torch": torch.__version__, "cases": json.dumps(self.cases)}
        save_file(self.tensors, FOLDER / f"{self.name}.safetensors", metadata=metadata)


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def conv():
    golden = Golden("conv", 1)
    cases = [  # x, w, bias, stride, padding, dilation, groups
        ("same", (2, 9, 8, 5), (7, 5, 3, 3), False, (1, 1), (1, 1), (1, 1), 1),
        ("same_bias", (1, 6, 7, 3), (4, 3, 3, 3), True, (1, 1), (1, 1), (1, 1), 1),
        ("pointwise", (2, 4, 5, 6), (3, 6, 1, 1), True, (1, 1), (0, 0), (1, 1), 1),
        ("pointwise_stride", (1, 7, 6, 3), (4, 3, 1, 1), False, (2, 2), (0, 0), (1, 1), 1),
        ("stem", (1, 13, 12, 3), (4, 3, 7, 7), False, (2, 2), (3, 3), (1, 1), 1),
        ("stride_parity", (1, 6, 5, 2), (3, 2, 3, 3), False, (2, 2), (1, 1), (1, 1), 1),
        ("dilated", (1, 8, 9, 2), (3, 2, 3, 3), False, (1, 1), (2, 2), (2, 2), 1),
        ("groups", (1, 5, 6, 6), (4, 3, 3, 3), True, (1, 1), (1, 1), (1, 1), 2),
        ("depthwise", (1, 6, 6, 4), (4, 1, 3, 3), False, (2, 1), (1, 1), (1, 1), 4),
        ("odd", (1, 7, 9, 2), (3, 2, 2, 4), False, (2, 3), (1, 0), (3, 1), 1),
    ]
    for name, x, w, bias, stride, padding, dilation, groups in cases:
        geometry = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)

        def function(x, w, b=None):
            return nhwc(F.conv2d(nchw(x), w, b, **geometry))

        leaves = dict(x=golden.noise(*x), w=golden.noise(*w), b=golden.noise(w[0]) if bias else None)
        golden.run(dict(name=name, **geometry), function, leaves)
    golden.save()


def batch_norm():
    golden = Golden("batch_norm", 2)
    for mode in ("train", "eval"):
        for epilogue in ("identity", "relu", "relu_scale_add", "add_relu"):
            shape, c = (3, 4, 5, 6), 6
            mean, var = golden.noise(c), golden.noise(c).abs() + 0.5
            running = [mean.clone(), var.clone()]
            shortcut = golden.noise(*shape) if "add" in epilogue else None

            def function(x, gamma, beta, shortcut=None):
                y = nhwc(F.batch_norm(nchw(x), *running, gamma, beta, mode == "train", 0.1, 1e-5))
                if epilogue == "identity":
                    return y
                if epilogue == "relu":
                    return F.relu(y)
                return 0.1 * F.relu(y) + shortcut if epilogue == "relu_scale_add" else F.relu(y + shortcut)

            x = golden.noise(*shape) * 2 + 0.5
            x = x.float().double()
            leaves = dict(x=x, gamma=golden.noise(c), beta=golden.noise(c), shortcut=shortcut)
            case = dict(name=f"{mode}_{epilogue}", mode=mode, epilogue=epilogue, eps=1e-5, scale=0.1)
            golden.run(case, function, leaves, running_mean=mean, running_var=var)
            if mode == "train":
                golden.tensors[f"{case['name']}.new_mean"] = running[0].float().numpy()
                golden.tensors[f"{case['name']}.new_var"] = running[1].float().numpy()
    golden.save()


def pool():
    golden = Golden("pool", 3)
    geometries = [  # x, kernel, stride, padding
        ((2, 6, 6, 3), (2, 2), (2, 2), (0, 0)),
        ((1, 7, 9, 2), (3, 3), (2, 2), (1, 1)),
        ((1, 5, 7, 2), (2, 3), (3, 2), (1, 1)),
        ((1, 3, 3, 2), (2, 2), (2, 2), (1, 1)),
        ((1, 6, 7, 2), (2, 2), (4, 5), (0, 1)),
    ]
    for index, (x, kernel, stride, padding) in enumerate(geometries):
        for ceil_mode in (False, True):
            geometry = dict(stride=stride, padding=padding, ceil_mode=ceil_mode)
            case = dict(kernel=kernel, **geometry, count_include_pad=True)
            name = f"{index}_{'ceil' if ceil_mode else 'floor'}"
            # Halves of small integers: many ties.
            ties = torch.round(golden.noise(*x) * 2) / 2
            for kind, values in (("max", golden.noise(*x)), ("max_ties", ties)):
                function = lambda x: nhwc(F.max_pool2d(nchw(x), kernel, **geometry))
                golden.run(dict(case, name=f"{kind}_{name}", op="max"), function, dict(x=values))
            for counted in (False, True):
                function = lambda x: nhwc(F.avg_pool2d(nchw(x), kernel, **geometry, count_include_pad=counted))
                case_name = f"avg_{'counted' if counted else 'not_counted'}_{name}"
                golden.run(dict(case, name=case_name, op="avg", count_include_pad=counted), function, dict(x=golden.noise(*x)))
    golden.run(dict(name="global", op="global"), lambda x: x.mean((1, 2)), dict(x=golden.noise(2, 3, 5, 4)))
    golden.save()


def dense():
    golden = Golden("dense", 4)
    for name, bias in (("linear", False), ("linear_bias", True)):
        leaves = dict(x=golden.noise(5, 37), w=golden.noise(6, 37), b=golden.noise(6) if bias else None)
        golden.run(dict(name=name, op="linear"), lambda x, w, b=None: F.linear(x, w, b), leaves)
    golden.run(dict(name="relu", op="relu"), lambda x: F.relu(x), dict(x=torch.round(golden.noise(4, 6) * 2)))
    labels = [3, 0, 9, 9, 1]
    for smoothing in (0.0, 0.1):
        function = lambda x: F.cross_entropy(x, torch.tensor(labels), label_smoothing=smoothing)
        case = dict(name=f"cross_entropy_{smoothing}", op="cross_entropy", labels=labels, smoothing=smoothing)
        golden.run(case, function, dict(x=(golden.noise(5, 10) * 6).float().double()))
    targets = golden.noise(5, 10).abs().float().double()
    golden.run(dict(name="cross_entropy_soft", op="cross_entropy_soft"), lambda x: F.cross_entropy(x, targets), dict(x=golden.noise(5, 10)), targets=targets)
    golden.save()


def update():
    golden = Golden("update", 5)
    steps = 10
    settings = [
        ("sgd", torch.optim.SGD, dict(lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False)),
        ("sgd_decay", torch.optim.SGD, dict(lr=0.1, momentum=0.0, weight_decay=0.01, nesterov=False)),
        ("sgd_momentum", torch.optim.SGD, dict(lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=False)),
        ("sgd_nesterov", torch.optim.SGD, dict(lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)),
        ("adamw", torch.optim.AdamW, dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)),
        ("adamw_other", torch.optim.AdamW, dict(lr=3e-2, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.0)),
    ]
    for name, optimizer, options in settings:
        start, grads = golden.noise(4, 5).float(), golden.noise(steps, 4, 5).float()
        param = torch.nn.Parameter(start.clone())
        optimizer, params = optimizer([param], foreach=False, **options), []
        for grad in grads:
            param.grad = grad.clone()
            optimizer.step()
            params.append(param.detach().clone())
        beta1, beta2 = options.pop("betas", (0.0, 0.0))
        case = dict(name=name, beta1=beta1, beta2=beta2, **options)
        golden.add(case, param=start, grads=grads, params=torch.stack(params))
    golden.save()


if __name__ == "__main__":
    for write in (conv, batch_norm, pool, dense, update):
        write()
