"""What is wrong on this machine before a run, and the fix for each: a table of checks.

`gather` looks, `diagnose` decides from what it saw, `mend` makes the changes that can be taken back.
"""

from outlast.doctor.checks import CHECKS, diagnose, exit_code
from outlast.doctor.facts import Facts
from outlast.doctor.findings import Check, Finding, Mend, Status
from outlast.doctor.gather import gather
from outlast.doctor.gpu import DriverQuestion
from outlast.doctor.mend import Mended, mend

__all__ = [
    "CHECKS",
    "Check",
    "DriverQuestion",
    "Facts",
    "Finding",
    "Mend",
    "Mended",
    "Status",
    "diagnose",
    "exit_code",
    "gather",
    "mend",
]
