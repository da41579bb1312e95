"""A folder of sealed checkpoints: what is whole, which to keep, how to make room, and how to save without loss.

`Vault` reads and changes the folder, `Saver` runs a save from admission to seal, `ladder` and `retention` decide.
"""

from outlast.checkpoints import codec, state
from outlast.checkpoints.ladder import RUNGS, Held, Move, Plan, Situation, plan
from outlast.checkpoints.layouts import Findings, inspect, is_candidate
from outlast.checkpoints.policy import Policy
from outlast.checkpoints.reserve import Reservation, ReservedFile, is_full, is_hidden_full
from outlast.checkpoints.retention import Candidate, Keep, Verdict, decide, knows_metric
from outlast.checkpoints.save import Saver
from outlast.checkpoints.seal import NAME as SEAL
from outlast.checkpoints.seal import Check, Entry, Seal, cut_files
from outlast.checkpoints.search import vaults_of
from outlast.checkpoints.shelf import Checkpoint, Choice, set_beside
from outlast.checkpoints.stage import Draft, Needs, Stage, reserved_file
from outlast.checkpoints.telling import say
from outlast.checkpoints.vault import Vault

__all__ = [
    "RUNGS",
    "SEAL",
    "Candidate",
    "Check",
    "Checkpoint",
    "Choice",
    "Draft",
    "Entry",
    "Findings",
    "Held",
    "Keep",
    "Move",
    "Needs",
    "Plan",
    "Policy",
    "Reservation",
    "ReservedFile",
    "Saver",
    "Seal",
    "Situation",
    "Stage",
    "Vault",
    "Verdict",
    "codec",
    "cut_files",
    "decide",
    "inspect",
    "is_candidate",
    "is_full",
    "is_hidden_full",
    "knows_metric",
    "plan",
    "reserved_file",
    "say",
    "set_beside",
    "state",
    "vaults_of",
]
