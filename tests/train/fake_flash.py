"""A `flash_attn` for tests: a package on disk that computes on the CPU, or fails as real ones do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMPUTES = """
import torch

def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, deterministic=False):
    # Batch, length, heads, head; written with einsum and loops so that it is not the code under test.
    CALLS.append((tuple(q.shape), str(q.dtype), dropout_p, causal, deterministic))
    queries, keys, groups = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    out = []
    for head in range(q.shape[2]):
        score = torch.einsum("bqd,bkd->bqk", q[:, :, head], k[:, :, head // groups]) * scale
        if causal:
            hidden = [[column > row + keys - queries for column in range(keys)] for row in range(queries)]
            score = score.masked_fill(torch.tensor(hidden), float("-inf"))
        weight = torch.nn.functional.dropout(torch.softmax(score, -1), dropout_p)
        out.append(torch.einsum("bqk,bkd->bqd", weight, v[:, :, head // groups]))
    return torch.stack(out, 2)

CALLS = []
"""
MISSING_SYMBOL = """
from flash_attn.bert_padding import pad_input
raise ImportError("flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN3c104cuda9SetDevice")
"""
MISSING_LIBRARY = """
raise OSError("libcudart.so.11.0: cannot open shared object file: No such file or directory")
"""
NEEDS_ANOTHER = "import einops_that_is_not_here"
LEAVES = "raise SystemExit(3)"
WARNS = "import warnings; warnings.warn('custom_fwd is deprecated', FutureWarning)\n" + COMPUTES
HAS_NOTHING = ""
NO_KERNEL = """
def flash_attn_func(q, k, v, **options):
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device\\nCUDA kernel errors ...")
"""


@contextmanager
def installed(folder: Path, code: str, version: str | None = "2.8.3") -> Iterator[None]:
    """While entered, `flash_attn` is this code, and pip knows it by a version."""
    package = folder / "flash_attn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    (package / "bert_padding.py").write_text("def pad_input(): ...")
    if version is not None:
        info = folder / f"flash_attn-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: flash-attn\nVersion: {version}\n")
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == "flash_attn"]:
            del sys.modules[name]
