"""Is there a way to a source? Asked once, in seconds: the clients' own tries take half a minute and more."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

HUB = "https://huggingface.co"
_YES = ("1", "ON", "YES", "TRUE")
_PORTS = {"http": 80, "https": 443}


def unreachable(
    source: str,
    environment: Mapping[str, str] = os.environ,
    connect: Callable[..., socket.socket] = socket.create_connection,
) -> str | None:
    """Why a source cannot be reached; None when it can, or when that cannot be told by a connection.

    Args:
        source: what `outlast data fetch` takes.
        environment: variables: HF_HUB_OFFLINE, HF_ENDPOINT, proxies.
        connect: opens a connection.
    """
    if source.startswith("hf://"):
        if environment.get("HF_HUB_OFFLINE", "").upper() in _YES:
            return "HF_HUB_OFFLINE is set"
        source = environment.get("HF_ENDPOINT") or HUB
    parts = urlsplit(source)
    if parts.scheme not in _PORTS or not parts.hostname:
        return None  # here, or an object store, whose own client knows how it is reached
    if environment.get(f"{parts.scheme.upper()}_PROXY") or environment.get(f"{parts.scheme}_proxy"):
        return None  # the proxy's business
    try:
        connect((parts.hostname, parts.port or _PORTS[parts.scheme]), timeout=5).close()
    except OSError as error:
        return f"{parts.hostname}: {error.strerror or error}"
    return None
