"""A neighbour that fills the volume at an exact moment of an unmodified script: at the n-th file event of a save.

STRIKE_AT is the number of the event (an open, rename, unlink, mkdir or truncate whose path has STRIKE_IN in it),
STRIKE_FILL the file to fill the volume with. Put this folder on PYTHONPATH.
"""

import os
import sys

_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"})
_left = int(os.environ.get("STRIKE_AT", "0"))


def _hook(event: str, arguments: tuple) -> None:
    global _left
    if _left <= 0 or event not in _EVENTS or os.environ["STRIKE_IN"] not in str(arguments[0]):
        return
    _left -= 1
    if _left == 0:
        filler = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fill.py")
        os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-S", "-E", filler, os.environ["STRIKE_FILL"]])
        print("struck at", event, arguments[0], file=sys.stderr, flush=True)


if _left:
    sys.addaudithook(_hook)
