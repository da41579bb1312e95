"""What an audit costs: an adapter of an 8B model's size, and the norms of its base's matrices.

python benchmarks/audit.py adapter      # 224 layers, rank 64, beside a loop of dense SVDs (a few of them, scaled up)
python benchmarks/audit.py norms        # beside a full SVD and 20 power iterations: time and error
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from outlast.audit import audit_lora_peft_dir
from outlast.audit.largest import norms

SHAPES = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
RANK, BLOCKS = 64, 32


def adapter(folder: Path, dtype: torch.dtype) -> None:
    """A trained-looking one: A as it starts, B of a decaying spectrum."""
    torch.manual_seed(0)
    fade = 0.9 ** torch.arange(RANK)
    tensors = {}
    for block in range(BLOCKS):
        for name, (outputs, inputs) in SHAPES.items():
            key = f"base_model.model.model.layers.{block}.{name}"
            tensors[f"{key}.lora_A.weight"] = (torch.rand(RANK, inputs) - 0.5).to(dtype)
            tensors[f"{key}.lora_B.weight"] = (torch.randn(outputs, RANK) * fade).to(dtype)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def measure_adapter() -> None:
    """The audit, and what dense SVDs of the same updates would take."""
    for dtype in (torch.float32, torch.bfloat16):
        with tempfile.TemporaryDirectory() as folder:
            adapter(Path(folder), dtype)
            size = os.path.getsize(Path(folder) / "adapter_model.safetensors")
            for _ in range(3):
                began, processor = time.perf_counter(), time.process_time()
                found = audit_lora_peft_dir(folder)
                seconds, used = time.perf_counter() - began, time.process_time() - processor
                print(
                    f"{dtype}: {len(found.layers)} layers, {size / 1e6:.0f} MB: {seconds:.2f} s, {used:.2f} of a core",
                    load(),
                )
    for name in ("self_attn.k_proj", "self_attn.q_proj"):
        outputs, inputs = SHAPES[name]
        start = time.perf_counter()
        torch.linalg.svdvals(torch.randn(outputs, RANK) @ torch.randn(RANK, inputs))
        print(f"dense svdvals of one {outputs} x {inputs} update, float32: {time.perf_counter() - start:.2f} s", load())


def power(matrix: torch.Tensor, steps: int = 20) -> float:
    """Power iterations from a random start, as the original does it."""
    vector = torch.randn(matrix.shape[1])
    for _ in range(steps):
        vector = matrix.T @ (matrix @ vector)
        vector /= vector.norm()
    return float((matrix @ vector).norm())


def measure_norms() -> None:
    """Time and relative error of each way on the same matrices."""
    random = np.random.default_rng(0)
    for name, (rows, columns, decay) in {
        "gaussian": (2048, 2048, None),
        "small gap": (2048, 2048, 1e-3),
        "tall gaussian": (7168, 2048, None),
    }.items():
        matrix = random.standard_normal((rows, columns)).astype(np.float32)
        if decay is not None:
            left, right = (np.linalg.qr(random.standard_normal((side, 64)))[0] for side in (rows, columns))
            values = 200 * (1 - decay) ** np.arange(64)
            matrix += ((left * values) @ right.T).astype(np.float32)
        tensor = torch.from_numpy(matrix)
        ways = {
            "full svd": lambda t=tensor: float(torch.linalg.svdvals(t)[0]),
            "20 power iterations": lambda t=tensor: power(t),
            "outlast": lambda m=matrix: norms(m).sigma_max,
        }
        truth = float(np.sqrt(np.linalg.eigvalsh(matrix.astype(np.float64).T @ matrix.astype(np.float64))[-1]))
        for way, compute in ways.items():
            took = []
            for _ in range(1 if way == "full svd" else 3):
                began = time.process_time()
                value = compute()
                took.append(time.process_time() - began)
            error = abs(value / truth - 1)
            print(f"{name} {rows} x {columns}, {way}: {min(took):.3f} s of a core, error {error:.1e}", load())


def load() -> str:
    """Figures on a machine that others use mean little: said beside each."""
    return f"(load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["adapter", "norms"], nargs="?", default="adapter")
    {"adapter": measure_adapter, "norms": measure_norms}[parser.parse_args().what]()
