"""Checks of the GPU, its driver, and the Python that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outlast.doctor.facts import Facts
from outlast.doctor.findings import Finding, error, export, fine, line, skipped, warning
from outlast.host import show_bytes


@dataclass(frozen=True, slots=True)
class Generation:
    """What GPUs from one compute capability on do well (CUDA C programming guide, arithmetic throughput)."""

    least: tuple[int, int]
    """Lowest compute capability."""
    name: str
    """Architecture."""
    precisions: tuple[str, ...]
    """Worth training in, the best first."""
    note: str = ""
    """What one must know of it."""


GENERATIONS: tuple[Generation, ...] = (
    Generation((10, 0), "Blackwell", ("bf16", "fp16", "fp8")),
    Generation((9, 0), "Hopper", ("bf16", "fp16", "fp8")),
    Generation((8, 9), "Ada", ("bf16", "fp16", "fp8")),
    Generation((8, 0), "Ampere", ("bf16", "fp16")),
    Generation((7, 5), "Turing", ("fp16",), "bf16 is emulated, and slow"),
    Generation((7, 0), "Volta", ("fp16",), "no bf16"),
    Generation((6, 1), "Pascal", ("no",), "fp16 saves memory and is much slower than fp32"),
    Generation((6, 0), "Pascal P100", ("fp16",), "no tensor cores: fp16 saves memory, and is at most twice as fast"),
    Generation((0, 0), "before Pascal", ("no",), "fp32 only"),
)
"""The newest first."""
_FLASH_NEEDS = (8, 0)


def generation(capability: tuple[int, int]) -> Generation:
    """The row of GPUs of a compute capability."""
    return next(row for row in GENERATIONS if capability >= row.least)


def gpu_driver(facts: Facts) -> Sequence[Finding]:
    """The driver answers."""
    driver = facts.driver
    if driver.problem:
        note = "says more; in docker: start with --gpus all; after an update of the driver: restart the machine"
        return [error(driver.problem, line("nvidia-smi", note=note))]
    if not driver.gpus:
        return [fine("no GPU")] if driver.gpus is not None else [skipped("the driver did not say")]
    names = ", ".join(f"{gpu.name} ({show_bytes(gpu.memory_bytes)})" for gpu in driver.gpus)
    return [fine(f"{names}, driver {driver.version}", gpus=len(driver.gpus))]


def gpu_precision(facts: Facts) -> Sequence[Finding]:
    """What is asked for is what the GPU does well."""
    if not facts.driver.gpus:
        return [fine("no GPU") if facts.driver.gpus is not None else skipped("the driver did not say")]
    gpu = min(facts.driver.gpus, key=lambda one: one.capability)
    row = generation(gpu.capability)
    best = "fp32" if row.precisions[0] == "no" else row.precisions[0]
    said = f"{gpu.name} ({row.name}, {gpu.capability[0]}.{gpu.capability[1]}): {best}{row.note and '; ' + row.note}"
    if facts.precision and facts.precision[0] not in (*row.precisions, "no"):
        asked, by = facts.precision
        said = f"{by} asks for {asked}, and {said}"
        return [warning(said, export("ACCELERATE_MIXED_PRECISION", row.precisions[0]))]
    return [fine(said)]


def attention(facts: Facts) -> Sequence[Finding]:
    """FlashAttention where it works, torch's own (SDPA) where not."""
    packages = facts.interpreter.packages if facts.interpreter else None
    if facts.interpreter is None:
        return [skipped("there is no python on the PATH; name the one that trains with --python")]
    if packages is None:
        return [skipped(f"{facts.interpreter.python} would have to be started; --deep does, or name another: --python")]
    version = packages.get("flash-attn")
    if version is None:
        return [fine("SDPA, torch's own; flash-attn is not installed")]
    remove = line(facts.interpreter.python, "-m", "pip", "uninstall", "-y", "flash-attn", note="SDPA is used then")
    if facts.interpreter.flash_error:
        return [error(f"flash-attn {version} cannot be imported: {facts.interpreter.flash_error}", remove)]
    slow = [gpu for gpu in facts.driver.gpus or () if gpu.capability < _FLASH_NEEDS]
    if slow:
        return [
            warning(f"flash-attn {version} needs an Ampere GPU; {slow[0].name} is older, and it fails there", remove)
        ]
    if not facts.driver.gpus:
        return [fine(f"flash-attn {version} is installed; no GPU")]
    return [fine(f"FlashAttention {version}")]


def venv_on_network(facts: Facts) -> Sequence[Finding]:
    """Importing torch opens thousands of files: minutes on a network volume."""
    if facts.interpreter is None or facts.interpreter.mount is None:
        return []
    python, prefix = facts.interpreter.python, facts.interpreter.prefix
    local = facts.temporary / "venv"
    fix = (
        f"{line(python, '-m', 'pip', 'freeze')} > {line(facts.temporary / 'frozen.txt')}"
        f" && {line(python, '-m', 'venv', local)}"
        f" && {line(local / 'bin' / 'pip', 'install', '-r', facts.temporary / 'frozen.txt')}"
    )
    return [warning(f"{prefix} is on {facts.interpreter.mount}: every import is slow", fix, prefix)]
