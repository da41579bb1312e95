"""Another process that takes all that is free on a volume: ``fill.py FILE``. Standard library only, and quick."""

import os
import sys


def main() -> None:
    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    size = 1 << 20
    block = b"\xff" * size
    while size:
        try:
            if os.write(fd, block[:size]) < size:
                size //= 2
        except OSError:
            size //= 2
    os.close(fd)


if __name__ == "__main__":
    main()
