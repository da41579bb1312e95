"""Asking the user's own interpreter, once and in a child process: what is installed, where do its libraries look.

Outlast may run in another environment than the training. Nothing is imported to learn versions; libraries are imported
only when asked to go deep (``datasets.config`` alone takes 730 ms, torch seconds). Whatever the child does, a hang or a
crash too, the answer is data.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

PACKAGES = (
    "huggingface_hub", "datasets", "transformers", "torch", "accelerate", "lightning", "peft", "bitsandbytes",
    "flash_attn", "triton", "wandb", "xformers",
)  # fmt: skip
"""Distributions that the answer names when they are installed."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as torch sees it."""

    name: str
    """``Tesla T4`` ..."""
    total_bytes: int
    """Its memory."""
    capability: tuple[int, int]
    """Compute capability: 7, 5 for a T4."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an interpreter said of itself."""

    python: str | None
    """Path of the interpreter that was asked; None when there is none."""
    version: str | None = None
    """Its version: ``3.11.8``."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Installed packages of `PACKAGES`, and their versions."""
    effective: Mapping[str, str] = field(default_factory=dict)
    """By id of the catalogue, where the libraries themselves look; empty unless asked to go deep."""
    gpus: tuple[Gpu, ...] = ()
    """GPUs; empty unless asked to go deep."""
    cuda: str | None = None
    """CUDA that torch was built for; None for none, or when not asked."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Libraries that could not be imported, and why; only when asked to go deep."""
    reason: str | None = None
    """Why there is no answer; None when there is one."""
    seconds: float = 0.0
    """How long it took."""


# Runs in the user's interpreter, of whatever version from 3.8 on: only the standard library, and no folder of the
# user's before it on the path (a file json.py in the current folder would be taken for the library).
_CHILD = r"""
import sys
sys.path[:] = [p for p in sys.path if p]
import json, os
marker, deep, packages = sys.argv[1], sys.argv[2] == "deep", sys.argv[3].split(",")
from importlib import metadata
told = {"version": "%d.%d.%d" % sys.version_info[:3], "versions": {}, "effective": {}, "failed": {}, "gpus": []}
for name in packages:
    try:
        told["versions"][name] = metadata.version(name)
    except Exception:
        pass

def hub():
    from huggingface_hub import constants as c
    return {"hf-home": c.HF_HOME, "hf-hub": c.HF_HUB_CACHE, "hf-xet": c.HF_XET_CACHE, "hf-assets": c.HF_ASSETS_CACHE,
            "hf-token": c.HF_TOKEN_PATH}

def datasets():
    from datasets import config as c
    # Its builders expand ~ at the time of use.
    return {"hf-datasets": os.path.expanduser(str(c.HF_DATASETS_CACHE)),
            "hf-datasets-downloads": os.path.expanduser(str(c.DOWNLOADED_DATASETS_PATH)),
            "hf-datasets-extracted": os.path.expanduser(str(c.EXTRACTED_DATASETS_PATH))}

def torch():
    import torch
    told["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            told["gpus"].append([p.name, p.total_memory, [p.major, p.minor]])
    found = {"torch": os.path.dirname(torch.hub.get_dir())}
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    found["inductor"] = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or default_cache_dir()
    return found

def triton():
    from triton import knobs
    return {"triton": knobs.cache.dir}

if deep:
    known = {"huggingface_hub": hub, "datasets": datasets, "torch": torch, "triton": triton}
    for name, ask in known.items():
        if name in told["versions"]:
            try:
                found = ask()
                told["effective"].update((key, os.path.abspath(str(path))) for key, path in found.items())
            except BaseException as error:
                told["failed"][name] = "%s: %s" % (type(error).__name__, str(error)[:300])
sys.stdout.write("\n" + marker + json.dumps(told) + "\n")
sys.stdout.flush()
os._exit(0)
"""


def find_python(environment: Mapping[str, str] | None = None) -> str | None:
    """The interpreter that ``python`` means in an environment, else ``python3``, else our own."""
    values = os.environ if environment is None else environment
    path = values.get("PATH", os.defpath)
    return shutil.which("python", path=path) or shutil.which("python3", path=path) or sys.executable or None


def ask(
    python: str | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    timeout: float = 20.0,
    deep: bool = False,
    cwd: str | os.PathLike[str] | None = None,
) -> Answer:
    """Ask an interpreter what is installed, and where its libraries look. Never raises.

    Args:
        python: the interpreter; None takes the one that ``python`` means.
        environment: variables that it gets; None takes those of the process.
        timeout: seconds that it has.
        deep: import the libraries, for their own paths and what torch says of the GPUs.
        cwd: folder that it runs in; None takes the process's.
    """
    values = dict(os.environ if environment is None else environment)
    program = find_python(values) if python is None else python
    if program is None:
        return Answer(None, reason="there is no python on the PATH")
    marker = f"outlast-{uuid.uuid4().hex}:"
    command = [program, "-c", _CHILD, marker, "deep" if deep else "", ",".join(PACKAGES)]
    begun = time.monotonic()
    try:
        code, output, errors = _run(command, values, timeout, cwd)
    except (OSError, ValueError) as error:
        return Answer(program, reason=f"it cannot be started: {getattr(error, 'strerror', None) or error}")
    seconds = time.monotonic() - begun
    for line in output.splitlines():
        if line.startswith(marker):
            with suppress(ValueError, KeyError, TypeError):
                return _answer(program, json.loads(line.removeprefix(marker)), seconds)
    return Answer(program, reason=_reason(code, errors, timeout), seconds=seconds)


def _run(
    command: list[str], environment: dict[str, str], timeout: float, cwd: str | os.PathLike[str] | None
) -> tuple[int | None, str, str]:
    """Exit code (None: it hung, and is gone with its children), output, errors."""
    with subprocess.Popen(
        command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, text=True, errors="replace",
    ) as child:  # fmt: skip
        try:
            output, errors = child.communicate(timeout=timeout)
            return child.returncode, output, errors
        except subprocess.TimeoutExpired as late:
            _kill_session(child.pid)
            said = late.stdout or b""
            return None, said.decode(errors="replace") if isinstance(said, bytes) else said, ""
        except BaseException:
            _kill_session(child.pid)
            raise


def _kill_session(leader: int) -> None:
    """A child of the child may hold the pipe: all go. The leader is not waited for yet, so that its id is its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _answer(program: str, told: dict[str, Any], seconds: float) -> Answer:
    gpus = tuple(Gpu(name, int(size), (int(major), int(minor))) for name, size, (major, minor) in told["gpus"])
    return Answer(
        program, str(told["version"]), dict(told["versions"]), dict(told["effective"]), gpus, told.get("cuda"),
        dict(told["failed"]), None, seconds,
    )  # fmt: skip


def _reason(code: int | None, errors: str, timeout: float) -> str:
    last = next((line for line in reversed(errors.splitlines()) if line.strip()), "")
    if code is None:
        return f"it did not answer within {timeout:g} seconds"
    ended = f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
    return f"{ended} and said nothing" if not last else f"{ended}: {last[:300]}"
