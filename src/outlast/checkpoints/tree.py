"""Nested Python data with tensors, as JSON plus named tensors. No pickle: nothing in it can run code when it is read.

`encode` and `decode` are each other's inverse for None, bool, int, float (bit for bit), str, bytes, list, tuple, dict
with any of these as keys, numpy arrays and scalars, and torch tensors.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from typing import Any

from outlast.checkpoints.tensors import dtype_name
from outlast.errors import BadInput

_PLAIN = (type(None), bool, int, float, str)


def encode(value: Any, prefix: str = "t") -> tuple[Any, dict[str, Any]]:
    """A JSON document and the tensors that it refers to.

    Args:
        value: what to encode.
        prefix: start of the tensors' names.

    Raises:
        BadInput: for an object of any other type; the message says where it is.
    """
    tensors: dict[str, Any] = {}
    return _encode(value, prefix, tensors, "state"), tensors


def _encode(value: Any, prefix: str, tensors: dict[str, Any], where: str) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        if dtype_name(str(value.dtype)) is None or value.layout is not torch.strided:
            raise _unsafe(f"{value.dtype} tensor of {value.layout}", where)
        name = f"{prefix}.{len(tensors)}"
        tensors[name] = value.detach()
        return {"!": "tensor", "name": name}
    if type(value) is float and math.isnan(value):
        # JSON knows one NaN only; its sign and payload are bits of a loss too.
        return {"!": "nan", "bits": struct.unpack("<Q", struct.pack("<d", value))[0]}
    if type(value) in _PLAIN:
        return value
    if isinstance(value, bytes | bytearray):
        return {"!": "bytes", "base64": base64.b64encode(bytes(value)).decode()}
    if type(value).__module__ == "numpy" and dtype_name(str(getattr(value, "dtype", ""))):
        array = torch.from_numpy(_array(value))
        mark = "numpy" if type(value).__name__ == "ndarray" else "numpy scalar"
        return {"!": mark, "of": _encode(array, prefix, tensors, where), "dtype": str(value.dtype)}
    if isinstance(value, list):
        return [_encode(item, prefix, tensors, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"!": "tuple", "of": [_encode(item, prefix, tensors, f"{where}[{i}]") for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        pairs = [
            [_encode(k, prefix, tensors, f"{where} key"), _encode(v, prefix, tensors, f"{where}[{k!r}]")]
            for k, v in value.items()
        ]
        if all(type(k) is str and k != "!" for k in value):
            return dict(pairs)
        return {"!": "dict", "of": pairs}
    raise _unsafe(type(value).__name__, where)


def _unsafe(what: str, where: str) -> BadInput:
    return BadInput(
        f"{where} is a {what}, which has no safe form on disk",
        hint="a state_dict should hold numbers, text, tensors, and lists and dicts of them",
    )


def _array(value: Any) -> Any:
    import numpy

    array = numpy.array(value, order="C")  # a copy: torch wants one that may be written to
    # torch lacks most unsigned types; the bytes are the same.
    return array.view(array.dtype.str.replace("u", "i")) if array.dtype.kind == "u" else array


def decode(doc: Any, tensors: Mapping[str, Any]) -> Any:
    """The value that was encoded.

    Raises:
        BadInput: when the document is not one that `encode` makes.
    """
    if isinstance(doc, list):
        return [decode(item, tensors) for item in doc]
    if not isinstance(doc, dict):
        return doc
    match doc.get("!"):
        case None:
            return {key: decode(item, tensors) for key, item in doc.items()}
        case "tensor":
            return tensors[doc["name"]]
        case "bytes":
            return base64.b64decode(doc["base64"])
        case "tuple":
            return tuple(decode(item, tensors) for item in doc["of"])
        case "dict":
            return {decode(key, tensors): decode(item, tensors) for key, item in doc["of"]}
        case "nan":
            return struct.unpack("<d", struct.pack("<Q", doc["bits"]))[0]
        case "numpy":
            return decode(doc["of"], tensors).numpy().view(doc["dtype"])
        case "numpy scalar":
            return decode(doc["of"], tensors).numpy().view(doc["dtype"])[()]
        case other:
            raise BadInput(f"unknown mark {other!r} in a saved state", hint="it is from a newer Outlast, or damaged")
