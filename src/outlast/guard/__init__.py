"""During a run: read the volumes and the journal, forecast, and pause as the last resort.

`Watch` is the thread; `forecast` and `pause` decide and know no clock, no disk; `Story` is what the journal tells.
`Lookout` is a second thread, where a cloud announces the machine's end.
"""

from outlast.guard.forecast import Forecast, Reading, Save, forecast, sentence
from outlast.guard.lookout import Lookout
from outlast.guard.story import Story
from outlast.guard.tail import Tail
from outlast.guard.watch import Screen, Subject, Watch

__all__ = [
    "Forecast",
    "Lookout",
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
