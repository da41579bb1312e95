"""During a run: read the volumes, main memory and the journal, forecast, and act before the last moment.

`Watch` is the thread that looks at volumes, `Lookout` one that listens where a cloud announces the machine's end,
`RamWatch` looks at main memory; `forecast`, `pause` and `ram` decide and know no clock, no disk; `Story` is what the
journal tells.
"""

from outlast.guard.forecast import Forecast, Reading, Save, forecast, sentence
from outlast.guard.lookout import Lookout
from outlast.guard.ram_watch import RamWatch
from outlast.guard.story import Story
from outlast.guard.tail import Tail
from outlast.guard.watch import Screen, Subject, Watch

__all__ = [
    "Forecast",
    "Lookout",
    "RamWatch",
    "Reading",
    "Save",
    "Screen",
    "Story",
    "Subject",
    "Tail",
    "Watch",
    "forecast",
    "sentence",
]
