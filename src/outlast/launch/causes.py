"""The causes that a run's end can have: what they mean, what to do, and whether a restart helps. Data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """A row of `CAUSES`."""

    words: str
    """The end in plain words, after "It ended because"."""
    fix: str
    """What to do about it."""
    restart: str = "never"
    """``never``, ``asked`` (somebody wanted it to stop), ``resume`` (from the newest seal), or ``progress`` (only if
    this attempt sealed a new step)."""
    is_counted: bool = True
    """True when a restart for it is one of those that ``--restarts`` allows."""


CAUSES: dict[str, Cause] = {
    "finished": Cause("the command finished", "nothing to do"),
    "deadline": Cause(
        "the session ends: it sealed its last step and left in time",
        "start the same command again in the next session: it goes on from that step",
        "asked",
    ),
    "notice": Cause(
        "the machine is about to be taken away: it sealed its last step and left in time",
        "start the same command again on another machine that sees this folder: it goes on from that step",
        "asked",
    ),
    "signal": Cause(
        "it was asked to stop: it sealed its last step and left",
        "start the same command again: it goes on from that step",
        "asked",
    ),
    "low_memory": Cause(
        "the memory limit was near: it sealed its last step and left before the kernel would have killed it",
        "raise the memory limit, or find what grows (outlast memory): fewer DataLoader workers, no list that only "
        "grows",
        "progress",
        # Each such end has sealed a new step: a leak costs restarts, but it must not use them up.
        is_counted=False,
    ),
    "ENOSPC": Cause(
        "a write failed: no space left on device",
        "free space on that volume (outlast doctor says which), or save less: --keep last=1; saves that outlast hooks "
        "are made to fit, so look at what else writes there (logs, caches, TMPDIR)",
        "resume",
    ),
    "EDQUOT": Cause(
        "a write failed: the disk quota is used up",
        "free space under that quota, ask for more, or declare it with --budget DIR=SIZE so that saves keep below it",
        "resume",
    ),
    "CUDA_OOM": Cause(
        "the GPU ran out of memory",
        "a smaller batch with gradient accumulation, bf16, or gradient checkpointing; "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True where it is fragmentation",
        "progress",
    ),
    "OOM_KILL": Cause(
        "the kernel killed a process of it for want of memory (OOM-kill)",
        "raise the memory limit, or use less: fewer DataLoader workers, smaller prefetch, no full data set in RAM",
        "resume",
    ),
    "MEMORY": Cause(
        "an allocation in main memory failed",
        "raise the limit (ulimit -v, the container's memory), or load less at once",
        "progress",
    ),
    "IMPORT": Cause(
        "a module could not be imported or parsed", "install what is missing in the interpreter named below"
    ),
    "EXCEPTION": Cause(
        "the program raised an exception", "the last frames below show the line; outlast does not restart a bug"
    ),
    "exit": Cause(
        "the program ended by itself with an error code", "its last output says why; outlast does not restart that"
    ),
    "SIGTERM": Cause(
        "it was asked to stop (SIGTERM)",
        "start the same command again: it goes on from the newest seal; if a scheduler sent it, ask for more time",
        "asked",
    ),
    "SIGHUP": Cause(
        "its terminal went away (SIGHUP)",
        "start it under nohup, tmux or a scheduler; the same command resumes it",
        "asked",
    ),
    "INTERRUPT": Cause(
        "somebody interrupted it (Ctrl-C)",
        "start the same command again: it goes on from the newest seal",
        "asked",
    ),
    "KILLED": Cause(
        "a person or program killed it (SIGKILL); the kernel's out-of-memory count did not rise",
        "find out who: a scheduler, a container's stop, another user; the same command resumes it",
        "resume",
    ),
    "CRASHED": Cause(
        "it crashed in native code",
        "look for a library mismatch or a full volume under a memory-mapped file; PYTHONFAULTHANDLER=1 shows where",
        "resume",
    ),
    "not_started": Cause("the command could not be started", "check its name, PATH and permissions"),
    "vanished": Cause(
        "nobody was left to write down its end: the supervisor was killed too, or the machine stopped",
        "start the same command again: it goes on from the newest seal",
    ),
    "unknown": Cause("the end left no trace that outlast can read", "its last output is the best there is"),
}
"""Every cause, by the name that the journal has in ``ended``."""
