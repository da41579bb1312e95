"""What a script's user is told of its data sets: one line on stderr each."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def tell(text: str) -> None:
    """One line, from one process of a machine; a closed stderr is no reason to fail."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with suppress(OSError, ValueError):
            sys.stderr.write(f"outlast: {text}\n")
