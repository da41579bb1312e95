"""Is this machine ready to train? A line each: ✓ good, ! worth knowing, ✗ must be mended; with the fix.

Usage: python scripts/check_setup.py [FOLDER]     where the run is to go; /kaggle/working where there is one, else here
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from duo import setup_check  # noqa: E402 (the folder above is not on the path before)


def main() -> int:
    """Print the report; 1 when something must be mended."""
    kaggle = Path("/kaggle/working")
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else kaggle if kaggle.is_dir() else Path.cwd()
    lines = setup_check.judge(setup_check.look(place))
    print("\n".join(map(str, lines)))
    bad = sum(line.mark == setup_check.BAD for line in lines)
    print(f"\n{bad} to mend; `outlast doctor` looks at the machine itself" if bad else "\nready")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
