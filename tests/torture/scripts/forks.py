"""Runs a script over and over in forked children: torch is imported once, so that a hundred kills take seconds.

Usage: forks.py SCRIPT ARGUMENTS...
Its input: ``start`` (it prints ``pid N``) and ``wait`` (it prints ``ended STATUS``).
"""

import os
import runpy
import sys

import torch  # noqa: F401


def main() -> None:
    pid = 0
    for line in sys.stdin:
        if line == "start\n":
            sys.stdout.flush()
            told, tell = os.pipe()
            pid = os.fork()
            if not pid:
                os.read(told, 1)  # the parent's line comes first
                sys.argv = sys.argv[1:]
                runpy.run_path(sys.argv[0], run_name="__main__")
                os._exit(0)
            print("pid", pid, flush=True)
            os.write(tell, b".")
            os.close(told)
            os.close(tell)
        else:
            _, status = os.waitpid(pid, 0)
            # The child may have died in the middle of a line.
            print("\nended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
