"""`outlast run` and `outlast why`: a command started guarded, supervised, restarted, and its end explained.

`supervise` has the effects; `ends`, `again` and `order` decide; `inject/` is what the command's Python processes load.
"""

from outlast.launch import settings
from outlast.launch.order import Order
from outlast.launch.rehearse import rehearse
from outlast.launch.supervise import supervise
from outlast.launch.why import Story, explain

__all__ = ["Order", "Story", "explain", "rehearse", "settings", "supervise"]
