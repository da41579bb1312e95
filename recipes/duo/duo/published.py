"""Published weights (safetensors) of the same network, from a folder or the hub, into `DiT`. Whole, or not at all.

No code of the model's repository runs unless `allow_remote_code` is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from duo.dit import SIZES, DiT
from outlast.errors import BadInput

_BLOCK = r"blocks\.(\d+)\."
NAMES: tuple[tuple[str, str], ...] = (
    (r"vocab_embed\.embedding", "embedding.weight"),
    (r"sigma_map\.mlp\.0\.(weight|bias)", r"noise.widen.\1"),
    (r"sigma_map\.mlp\.2\.(weight|bias)", r"noise.mix.\1"),
    (_BLOCK + r"norm([12])\.weight", r"blocks.\1.norm\2.weight"),
    (_BLOCK + r"attn_qkv\.weight", r"blocks.\1.qkv.weight"),
    (_BLOCK + r"attn_out\.weight", r"blocks.\1.out.weight"),
    (_BLOCK + r"mlp\.0\.(weight|bias)", r"blocks.\1.widen.\2"),
    (_BLOCK + r"mlp\.2\.(weight|bias)", r"blocks.\1.narrow.\2"),
    (_BLOCK + r"adaLN_modulation\.(weight|bias)", r"blocks.\1.modulation.\2"),
    (r"output_layer\.norm_final\.weight", "norm.weight"),
    (r"output_layer\.adaLN_modulation\.(weight|bias)", r"modulation.\1"),
    (r"output_layer\.linear\.(weight|bias)", r"output.\1"),
)
"""Names of the published tensors, after their prefix, and ours."""
PREFIXES = ("backbone.", "model.", "module.", "_orig_mod.")
"""What may stand before each name, once or several times (a wrapper's, a compiled module's)."""
FOLLOWS = re.compile(r"(rotary_emb\.inv_freq|(.*\.)?position_ids)")
"""Tensors that follow from the sizes: not needed."""
INDEX = "model.safetensors.index.json"
HEADS = ("n_heads", "num_attention_heads", "heads")
LENGTHS = ("model_length", "max_position_embeddings", "length")
"""Names of what no tensor's shape tells, in config.json."""


def load(
    source: str | Path,
    *,
    revision: str | None = None,
    length: int | None = None,
    dropout: float = 0.1,
    attention: str = "auto",
    allow_remote_code: bool = False,
) -> DiT:
    """A network with published weights.

    Args:
        source: a folder with *.safetensors and config.json, or a model of the hub (``owner/name``).
        revision: of the hub's model.
        length: most positions; None for what the configuration says.
        dropout: as of `DiT`.
        attention: as of `DiT`.
        allow_remote_code: let Transformers run the repository's own code to load it, also from pickled weights. That
            code can do all that you can.

    Raises:
        BadInput: when there is nothing to load, or it is another network.
    """
    folder = _folder(source, revision, ["*.safetensors", "*.json"] + (["*.py", "*.bin"] if allow_remote_code else []))
    config = _json(folder / "config.json")
    tensors = _by_remote_code(folder) if allow_remote_code else _tensors(folder)
    state = translate(tensors, where=str(source))
    model = DiT(**_sizes(state, config, length, source), dropout=dropout, attention=attention)
    _check(model, state, source)
    model.load_state_dict(state)
    return model


def translate(tensors: Mapping[str, torch.Tensor], *, where: str) -> dict[str, torch.Tensor]:
    """The tensors under our names.

    Raises:
        BadInput: for a name that is not in NAMES, or two tensors for one of ours.
    """
    found: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        plain = _without_prefix(name)
        if FOLLOWS.fullmatch(plain):
            continue
        ours = next((re.sub(f"^{theirs}$", to, plain) for theirs, to in NAMES if re.fullmatch(theirs, plain)), None)
        if ours is None or ours in found:
            unknown.append(name)
        else:
            found[ours] = tensor
    if unknown or not found:
        raise BadInput(
            f"{where} is not this network: " + (_some(unknown) + " not known" if unknown else "it has no tensors"),
            hint="a DUO or MDLM network (dit); for another one leave eval.checkpoint_path empty",
        )
    return found


def _folder(source: str | Path, revision: str | None, patterns: list[str]) -> Path:
    if (folder := Path(source)).is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise BadInput(f"{source} is no folder, and no model of the hub", hint="a folder, or owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        words = str(error).strip().partition("\n")[0]
        raise BadInput(
            f"{source} cannot be fetched from the hub: {words}",
            hint="check the name, the network and HF_TOKEN; or give a folder",
        ) from error


def _json(file: Path) -> dict[str, Any]:
    """A file's object; empty where there is no file."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInput(f"{file} is not JSON: {error}", hint="fetch it again") from error
    if not isinstance(found, dict):
        raise BadInput(f"{file} is not a JSON object", hint="fetch it again")
    return found


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in _files(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
        except FileNotFoundError as error:
            raise BadInput(f"{file} is missing, and {INDEX} names it", hint="fetch the folder again") from error
        except SafetensorError as error:
            raise BadInput(f"{file} is not a whole safetensors file: {error}", hint="fetch it again") from error
    return found


def _files(folder: Path) -> list[Path]:
    """Those that the index of a model in parts names; without an index, all. Names with a path are not followed."""
    if (folder / INDEX).exists():
        named = _json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise BadInput(f"{folder / INDEX} has no weight_map of file names", hint="fetch it again")
        return [folder / Path(name).name for name in sorted(set(named.values()))]
    if not (files := sorted(folder.glob("*.safetensors"))):
        raise BadInput(
            f"no *.safetensors in {folder}",
            hint="pickled weights are not opened, they can run code: ask for safetensors, or allow remote code",
        )
    return files


def _by_remote_code(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForMaskedLM

    try:
        model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    except Exception as error:  # it is anybody's code
        words = str(error).strip().partition("\n")[0]
        raise BadInput(
            f"the code of {folder} failed: {type(error).__name__}: {words}",
            hint="without remote code only *.safetensors is needed",
        ) from error
    return dict(model.state_dict())


def _sizes(
    state: Mapping[str, torch.Tensor], config: Mapping[str, Any], length: int | None, source: str | Path
) -> dict[str, int]:
    """From the tensors' shapes; heads and length from the configuration, which alone tells them."""
    needed = ("embedding.weight", "noise.widen.weight", "blocks.0.qkv.weight")
    if missing := [name for name in needed if state.get(name) is None or state[name].dim() != 2]:
        raise BadInput(f"{source} has no {_some(missing)}", hint="the file is not whole, or of another network")
    vocab, hidden = state["embedding.weight"].shape
    numbers = {int(name.split(".")[1]) for name in state if name.startswith("blocks.")}
    if (blocks := len(numbers)) <= max(numbers):
        raise BadInput(f"{source} has blocks missing between 0 and {max(numbers)}", hint="the file is not whole")
    like = [size.heads for size in SIZES.values() if (size.hidden, size.blocks) == (hidden, blocks)]
    heads = _first(config, HEADS) or next(iter(like), None)
    length = length or _first(config, LENGTHS)
    if heads is None or length is None:
        raise BadInput(
            f"{source} does not tell its {'heads' if heads is None else 'length'}",
            hint=f"config.json with {HEADS[0]} and {LENGTHS[0]} belongs beside it",
        )
    return {
        "vocab": vocab, "hidden": hidden, "blocks": blocks, "heads": heads, "length": length,
        "cond_dim": state["noise.widen.weight"].shape[0],
    }  # fmt: skip


def _check(model: DiT, state: Mapping[str, torch.Tensor], source: str | Path) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wanted == given:
        return
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    other = [
        f"{name} {given[name]} for {wanted[name]}" for name in wanted if given.get(name, wanted[name]) != wanted[name]
    ]
    parts = (("missing", missing), ("too many", extra), ("of another shape", other))
    raise BadInput(
        f"{source} does not fill this network: "
        + "; ".join(f"{what}: {_some(names)}" for what, names in parts if names),
        hint="the file is not whole, or of another network; nothing was loaded",
    )


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _without_prefix(name: str) -> str:
    while (prefix := next((each for each in PREFIXES if name.startswith(each)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
