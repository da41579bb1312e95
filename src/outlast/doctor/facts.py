"""What doctor knows of a machine: plain data that the checks decide from. `gather` fills it; tests build it by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outlast.caches import Place
from outlast.host import Budget, Room


@dataclass(frozen=True, slots=True)
class Access:
    """Whether we can write to a path, and what stands in the way."""

    is_writable: bool
    """The kernel's answer for this process."""
    is_ours: bool = True
    """True when it belongs to our user."""
    mode: int = 0o755
    """Permission bits."""
    is_read_only: bool = False
    """True when its volume is mounted read-only."""
    is_immutable: bool = False
    """True when it has the attribute ``i`` (chattr)."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A place where a run writes."""

    name: str
    """What it is for: ``this folder``, ``home`` ..."""
    path: Path
    """Absolute; need not exist."""
    is_there: bool
    """False when the figures are those of the nearest folder above it."""
    room: Room
    """What can be written there."""
    access: Access
    """Whether we can write there."""
    total_inodes: int | None = None
    """Files that the volume can hold; None when it has no fixed number."""


@dataclass(frozen=True, slots=True)
class CacheFact:
    """A cache of the catalogue, as it is on disk."""

    place: Place
    """Where it is, and which variable says so."""
    is_there: bool
    """True when the folder exists."""
    access: Access | None = None
    """Whether we can write to it; None where it does not exist."""
    others: tuple[Path, ...] = ()
    """Further folders that hold the same kind of cache: what is in them is not found."""
    is_memory: bool = False
    """True when it is on a tmpfs."""
    device: int | None = None
    """Its volume: equal for two paths on one."""


@dataclass(frozen=True, slots=True)
class Partial:
    """A download that did not finish."""

    path: Path
    """The ``.incomplete`` file."""
    bytes: int
    """Blocks that it takes."""
    is_idle: bool
    """True when nobody has it open and it is older than ten minutes."""


@dataclass(frozen=True, slots=True)
class Hub:
    """What a bounded look at the hub's cache found."""

    repos: int = 0
    """Repositories that were looked at."""
    all_repos: int = 0
    """Repositories that there are."""
    broken: tuple[tuple[Path, Path], ...] = ()
    """Repositories in which a link leads nowhere, each with the first such link."""
    partials: tuple[Partial, ...] = ()
    """Downloads that did not finish."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file of torch's extension builder: while it is there, every build waits."""

    path: Path
    """The file."""
    age_seconds: float
    """How long it has been there."""
    user: str | None
    """Process that has it open, as its maker does; None when none that we may look into."""
    is_free: bool | None
    """True when the kernel says that nobody has it open; None when it cannot tell."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    name: str
    """As its driver calls it."""
    capability: tuple[int, int]
    """Compute capability."""
    memory_bytes: int
    """Memory in all."""


@dataclass(frozen=True, slots=True)
class Driver:
    """What the NVIDIA driver answered."""

    gpus: tuple[Gpu, ...] | None = ()
    """The GPUs; None when the driver did not say."""
    version: str | None = None
    """Of the driver."""
    problem: str | None = None
    """Why it did not say; None when there is no driver either."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that trains."""

    python: Path
    """Its program."""
    prefix: Path
    """Folder of its environment."""
    mount: str | None = None
    """What that folder is on, when it is a network volume."""
    packages: Mapping[str, str] | None = None
    """Installed packages (lower case, ``-``) and their versions; None when they could not be listed."""
    flash_error: str | None = None
    """With --deep: why flash_attn cannot be imported; None when it can, or was not tried."""


@dataclass(frozen=True, slots=True)
class Saves:
    """A folder of checkpoints."""

    root: Path
    """The folder."""
    own: Path
    """Outlast's own folder in it."""
    sealed: int = 0
    """Checkpoints that are whole."""
    unsealed: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)
    """Folders without a seal that are no whole checkpoint, and what they lack."""
    damaged: tuple[Path, ...] = ()
    """Sealed ones of which too little is left."""
    cut: Mapping[Path, tuple[str, str]] = field(default_factory=dict)
    """Sealed ones with files that are not as long as they were: the files, and what the rest still is."""
    trash: Path | None = None
    """Deletions that did not finish are in here."""
    trash_bytes: int = 0
    """What they hold."""
    need_bytes: int | None = None
    """What the next full save needs; None before the first one."""
    free_bytes: int | None = None
    """What can be written there."""

    @property
    def fits(self) -> int | None:
        """Full saves that fit now; None when unknown."""
        if self.need_bytes is None or self.free_bytes is None:
            return None
        return max(0, self.free_bytes) // self.need_bytes


@dataclass(frozen=True, slots=True)
class Probed:
    """With --deep: what the user's own interpreter said."""

    effective: Mapping[str, Path] = field(default_factory=dict)
    """By id of a cache: where its owner really looks."""
    problem: str | None = None
    """Why it did not answer."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks decide from."""

    home: Path
    """The run's folder."""
    environment: Mapping[str, str]
    """Variables."""
    budgets: tuple[Budget, ...] = ()
    """Limits that the user declared on the command line."""
    volumes: tuple[Volume, ...] = ()
    """Places where a run writes."""
    shm: Volume | None = None
    """/dev/shm; None when there is none."""
    caches: Mapping[str, CacheFact] = field(default_factory=dict)
    """By id of the catalogue."""
    hub: Hub = field(default_factory=Hub)
    """The hub's cache."""
    locks: tuple[Lock, ...] = ()
    """Lock files of torch's extension builder."""
    unsynced: tuple[Path, ...] = ()
    """Runs of wandb that are on this machine only."""
    token: Path | None = None
    """The hub's login token, where one is stored."""
    temporary: Path = Path("/tmp")
    """Folder for temporary files."""
    precision: tuple[str, str] | None = None
    """Precision that accelerate is told to use, and by what."""
    interpreter: Interpreter | None = None
    """The Python that trains; None when none was found."""
    driver: Driver = field(default_factory=Driver)
    """GPUs and their driver."""
    saves: tuple[Saves, ...] = ()
    """Folders of checkpoints."""
    probed: Probed | None = None
    """None without --deep."""
