"""What `outlast env` prints on a machine whose root is another folder: ROOT CWD [--make]."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from outlast.caches.here import look, make_folders
from outlast.cli.env import Shell, written

here = look(root=Path(sys.argv[1]), cwd=Path(sys.argv[2]))
make_folders(here.layout)
sys.stdout.buffer.write(os.fsencode(written(here, Shell(sys.argv[3]))))
