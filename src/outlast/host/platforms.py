"""Which platform this is, and what it is known to limit: a table of data, not a chain of ifs.

A source that ends in "(from memory)" is a page whose content was known and not looked up when the row was written.
What is in doubt or said by nobody is None. docs/platforms.md tells more of each row.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fact:
    """Something known of a platform, and from where. What nobody knows is no Fact, but None."""

    value: float
    """Bytes or seconds."""
    source: str
    """Who says so: a documentation page, a public thread, our own measurement."""
    date: str
    """When it was so: ``2026-08``."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A path of a platform and what it is good for."""

    path: str
    """Absolute; ``~``, ``$NAME`` of the environment and ``*`` are filled in by `spots_here`."""
    role: str
    """``kept`` (outlives the session), ``roomy`` (large, for weights and data), ``scratch`` (fast and local, for many
    small files), ``small`` (fills up first)."""
    kept: bool | None = None
    """Whether it outlives the session; None when that depends or is not known."""
    total_bytes: Fact | None = None
    """How large it is."""
    note: str = ""
    """What one must know of it."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A row of `PLATFORMS`."""

    name: str
    """Stable: ``kaggle``, ``runpod`` ..."""
    title: str
    """For people."""
    variables: tuple[str, ...] = ()
    """Any of these in the environment tells it: ``NAME``, ``NAME=value``, or ``A+B`` when only both together do."""
    paths: tuple[str, ...] = ()
    """Any of these below the root folder tells it."""
    spots: tuple[Spot, ...] = ()
    """Its paths."""
    session_seconds: Fact | None = None
    """How long a session may last at most."""
    idle_seconds: Fact | None = None
    """How long it may be idle."""
    preemption: str | None = None
    """Where or how a preemption is announced; None when it is not, or nobody knows."""
    budget_variables: tuple[str, ...] = ()
    """Variables in which the platform says how much of a network volume is the user's."""
    notes: tuple[str, ...] = field(default=())
    """Traps, a line each."""


_HOUR = 3600

_DAY = 24 * _HOUR

_RUNPOD_ENDS = "a spot pod gets SIGTERM, and SIGKILL 5 s later (docs.runpod.io, pod pricing; from memory)"
_RUNPOD_DISK = Spot("~", "small", False, None, "the container disk: emptied when the pod stops; 20 GB unless chosen")

PLATFORMS: tuple[Platform, ...] = (
    # Before Colab: Kaggle's image is made from Colab's and may carry its variables.
    Platform(
        "kaggle", "Kaggle notebook", variables=("KAGGLE_KERNEL_RUN_TYPE",), paths=("kaggle/working",),
        spots=(
            Spot("/kaggle/working", "kept", True, Fact(19.5e9, "unslothai/unsloth#8439", "2026-08"),
                 "the only folder that is kept, and the small one"),
            Spot("/tmp", "roomy", False, Fact(8062e9, "unslothai/unsloth#8439", "2026-08"),
                 "gone after the session; 1,027 of 8,062 GB were free"),
            Spot("~", "roomy", False, Fact(8062e9, "unslothai/unsloth#8439", "2026-08"), "on the same disk as /tmp"),
        ),
        session_seconds=Fact(12 * _HOUR, "kaggle.com/docs/notebooks, technical specifications (from memory)", "2025"),
        notes=(
            "a TPU session lasts 9 hours at most",
            "a version that is saved runs again from an empty folder: what an interactive session left is not there",
        ),
    ),
    Platform(
        "colab", "Google Colab", variables=("COLAB_RELEASE_TAG", "COLAB_BACKEND_VERSION", "COLAB_JUPYTER_IP"),
        spots=(
            Spot("/content/drive/MyDrive", "kept", True,
                 Fact(15e9, "support.google.com/drive, shared with mail and photos (from memory)", "2025"),
                 "when mounted; slow for many small files"),
            Spot("/content", "roomy", False, None, "the machine's own disk; gone after the session"),
            Spot("/tmp", "scratch", False, None, "on the same disk as /content"),
        ),
        session_seconds=Fact(12 * _HOUR, "research.google.com/colaboratory/faq.html: at most (from memory)", "2025"),
        notes=(
            "a session may end earlier and without notice; the paid tier Pro+ has 24 hours",
            "files deleted from Drive go to its bin and still count (transformers#14922, colabtools#1269)",
        ),
    ),
    # Before Studio, whose variables it carries.
    Platform(
        "studio-lab", "SageMaker Studio Lab", paths=("home/studio-lab-user",),
        spots=(
            Spot("/home/studio-lab-user", "kept", True,
                 Fact(15e9, "docs.aws.amazon.com/sagemaker, Studio Lab: project storage (from memory)", "2025"),
                 "kept, and small: the conda environments are in it"),
            Spot("/tmp", "scratch", False, None, "gone after the session"),
        ),
        session_seconds=Fact(4 * _HOUR, "docs.aws.amazon.com/sagemaker, Studio Lab: GPU runtime (from memory)", "2025"),
    ),
    Platform(
        "sagemaker-training", "SageMaker training job",
        variables=("TRAINING_JOB_ARN", "SM_TRAINING_ENV", "SM_MODEL_DIR"),
        paths=("opt/ml/input/config/resourceconfig.json",),
        spots=(
            Spot("/opt/ml/checkpoints", "kept", True, None,
                 "copied to S3 while the job runs when it has a CheckpointConfig, and back at the start"),
            Spot("/opt/ml/model", "kept", True, None, "packed and uploaded once, when the job ends by itself"),
            Spot("/opt/ml/output/data", "kept", True, None, "uploaded once, at the end"),
            Spot("/tmp", "roomy", False, None, "on the job's volume (VolumeSizeInGB), or on local NVMe"),
        ),
        session_seconds=Fact(28 * _DAY, "SageMaker API, StoppingCondition: 1 day unless set (from memory)", "2025"),
        preemption="SIGTERM, and SIGKILL 120 s later, at the time limit and on managed spot (SageMaker API, "
        "StoppingCondition; from memory)",
    ),
    Platform(
        "sagemaker-studio", "SageMaker Studio", variables=("SAGEMAKER_APP_TYPE", "SAGEMAKER_SPACE_NAME"),
        spots=(
            Spot("/home/sagemaker-user", "kept", True,
                 Fact(5e9, "docs.aws.amazon.com/sagemaker, JupyterLab administrator guide: unless chosen", "2026-11"),
                 "the space's own volume, 16,384 GB at most"),
            Spot("/mnt/sagemaker-nvme", "scratch", False, None, "on instances with NVMe; emptied when they stop"),
            Spot("/tmp", "scratch", False, None, ""),
        ),
    ),
    Platform(
        "sagemaker-notebook", "SageMaker notebook instance", paths=("home/ec2-user/SageMaker",),
        spots=(
            Spot("/home/ec2-user/SageMaker", "kept", True,
                 Fact(5e9, "SageMaker API, CreateNotebookInstance: unless chosen (from memory)", "2025"),
                 "the only folder that outlives a stop"),
            Spot("~", "small", False, None, "anything else in the home folder is gone after a stop"),
            Spot("/tmp", "scratch", False, None, ""),
        ),
    ),
    Platform(
        "modal", "Modal", variables=("MODAL_TASK_ID",),
        spots=(
            Spot("/tmp", "roomy", False,
                 Fact(512 * 2**30, "modal.com/docs/guide/resources: unless more is asked for (from memory)", "2025"),
                 "gone with the container"),
        ),
        session_seconds=Fact(_DAY, "modal.com/docs/guide/timeouts: most; 5 minutes unless set", "2026-11"),
        preemption="an interrupt signal, then a grace period (modal.com/docs/guide/preemption)",
        notes=("only what is in a Volume is kept, and only once it is committed: name its folder for results",),
    ),
    Platform(
        "runpod-network", "RunPod pod with a network volume", variables=("RUNPOD_POD_ID+RUNPOD_VOLUME_ID",),
        paths=("runpod-volume",),
        spots=(
            Spot("/workspace", "kept", True, None,
                 "a share of a cluster's volume: df shows the cluster (2.3 PB), the limit is what was rented"),
            Spot("/runpod-volume", "kept", True, None, "the same, in a serverless worker"),
            Spot("/tmp", "scratch", False, None, "on the container disk; fast, for many small files"),
            _RUNPOD_DISK,
        ),
        preemption=_RUNPOD_ENDS,
        notes=("no variable says how large the volume is: --budget /workspace=100GB",),
    ),
    Platform(
        "runpod", "RunPod pod", variables=("RUNPOD_POD_ID",),
        spots=(
            Spot("/workspace", "kept", True, None, "the volume disk: outlives a stop, no termination; can only grow"),
            Spot("/tmp", "scratch", False, None, "on the container disk"),
            _RUNPOD_DISK,
        ),
        preemption=_RUNPOD_ENDS,
    ),
    Platform(
        "vast", "Vast.ai instance", variables=("VAST_CONTAINERLABEL", "CONTAINER_API_KEY+CONTAINER_ID"),
        spots=(
            Spot("/data", "kept", True, None, "where a volume is mounted by habit (seeds/001); bound to its machine"),
            Spot("/workspace", "roomy", None, None,
                 "on the instance's disk, whose size is fixed when it is made; outlives a stop, not a destruction"),
            Spot("/tmp", "scratch", False, None, "on the instance's disk"),
        ),
        notes=(
            "the disk cannot be enlarged later (docs.vast.ai, Docker execution environment)",
            "an interruptible instance that is outbid is paused; no notice is documented",
        ),
    ),
    Platform(
        "paperspace", "Paperspace Gradient notebook",
        variables=("PAPERSPACE_NOTEBOOK_ID", "PAPERSPACE_NOTEBOOK_REPO_ID", "PAPERSPACE_CLUSTER_ID"),
        spots=(
            Spot("/storage", "kept", True, None, "shared by the team and by all its notebooks"),
            Spot("/notebooks", "kept", True, None, "this notebook's own"),
            Spot("/tmp", "scratch", False, None, "gone after the session"),
            Spot("~", "small", False, None, "the container: gone after the session"),
        ),
        notes=("a session ends at the auto-shutdown time that was chosen: 6 hours on free machines (from memory)",),
    ),
    Platform(
        "slurm", "Slurm job", variables=("SLURM_JOB_ID", "SLURM_JOBID"),
        spots=(
            Spot("$SLURM_TMPDIR", "scratch", False, None, "the job's own folder on the node; gone with the job"),
            Spot("$TMPDIR", "scratch", False, None, "on many clusters the job's own folder on the node"),
            Spot("$SCRATCH", "roomy", None, None, "large, purged by age on most clusters"),
            Spot("$WORK", "roomy", True, None, ""),
            Spot("$PROJECT", "kept", True, None, "the group's, with the group's quota"),
            Spot("~", "small", True, None, "has a quota of bytes and of files on most clusters"),
        ),
        preemption="SIGCONT and SIGTERM, and SIGKILL after KillWait (30 s) or the partition's GraceTime; earlier with "
        "sbatch --signal=B:USR1@120 (slurm.schedmd.com, preempt.html and sbatch.html; from memory)",
        notes=(
            "when the job must end is in SLURM_JOB_END_TIME, seconds since the epoch (sbatch.html; from memory)",
            "quotas of Lustre, GPFS and NFS are not in statvfs: lfs quota, mmlsquota or quota tell, then --budget",
        ),
    ),
    Platform(
        "lambda", "Lambda instance with a filesystem", paths=("lambda/nfs",),
        spots=(
            Spot("/lambda/nfs/*", "kept", True, None, "outlives the instance (docs.lambda.ai; from memory)"),
            Spot("~", "roomy", False, None, "the instance's disk: gone when it is terminated; it cannot be stopped"),
            Spot("/tmp", "scratch", False, None, "on the instance's disk"),
        ),
        notes=("an instance without a filesystem cannot be told from a plain machine; nothing on it is kept",),
    ),
    Platform(
        "kubernetes", "Kubernetes pod", variables=("KUBERNETES_SERVICE_HOST",),
        paths=("var/run/secrets/kubernetes.io", "run/secrets/kubernetes.io"),
        spots=(
            Spot("/workspace", "roomy", None, None, "kept where it is a claimed volume"),
            Spot("/data", "roomy", None, None, "kept where it is a claimed volume"),
            Spot("/tmp", "scratch", False, None, "counts against the pod's limit of ephemeral storage"),
            Spot("/dev/shm", "small", False,
                 Fact(64 * 2**20, "the container runtime's default; an emptyDir of medium Memory enlarges it", "2025"),
                 "data loaders pass batches through it"),
        ),
        preemption="SIGTERM, and SIGKILL after terminationGracePeriodSeconds, 30 s unless set (kubernetes.io, pod "
        "lifecycle; from memory)",
        notes=(
            "over its limit of ephemeral storage a pod is evicted: there is no ENOSPC before (kubernetes.io, local "
            "ephemeral storage; from memory)",
        ),
    ),
    Platform(
        "docker", "container", variables=("container=docker", "container=podman", "container=oci"),
        paths=(".dockerenv", "run/.containerenv"),
        spots=(
            Spot("/workspace", "roomy", None, None, "kept where it is a mount"),
            Spot("/data", "roomy", None, None, "kept where it is a mount"),
            Spot("/tmp", "scratch", False, None, "in the container's writable layer"),
            Spot("~", "small", False, None, "in the container's writable layer: gone with the container"),
            Spot("/dev/shm", "small", False,
                 Fact(64 * 2**20, "docs.docker.com, docker run --shm-size: unless set (from memory)", "2025"),
                 "data loaders pass batches through it"),
        ),
        preemption="docker stop: SIGTERM, and SIGKILL 10 s later (docs.docker.com, docker stop; from memory)",
    ),
    Platform(
        "wsl", "Windows Subsystem for Linux", variables=("WSL_DISTRO_NAME", "WSL_INTEROP"),
        paths=("proc/sys/fs/binfmt_misc/WSLInterop", "proc/sys/fs/binfmt_misc/WSLInterop-late"),
        spots=(
            Spot("~", "roomy", True,
                 Fact(2**40, "learn.microsoft.com/windows/wsl/disk-space: at most (from memory)", "2025"),
                 "in a virtual disk that grows on a Windows volume and does not shrink by itself"),
            Spot("/tmp", "scratch", False, None, "in the same virtual disk"),
            Spot("/mnt/c", "small", True, None, "Windows' own volume: slow for many small files"),
        ),
        notes=("free space shows what the virtual disk may grow to, not what Windows has left: look at /mnt/c too",),
    ),
    Platform(
        "plain", "a machine of no known platform",
        spots=(
            Spot("~", "kept", True, None, ""),
            Spot("/tmp", "scratch", None, None, "memory where it is a tmpfs"),
        ),
    ),
)  # fmt: skip
"""The most telling first: services, then schedulers, then containers; the last one is always true."""


def recognise(environment: Mapping[str, str] | None = None, *, root: Path = Path("/")) -> Platform:
    """The first platform that the environment or the root folder tells.

    Args:
        environment: variables; None takes those of the process.
        root: root of the file system; a fake one in tests.
    """
    values = os.environ if environment is None else environment
    for platform in PLATFORMS[:-1]:
        if _is_told(platform, values, root):
            return platform
    return PLATFORMS[-1]


def _is_told(platform: Platform, values: Mapping[str, str], root: Path) -> bool:
    if any(all(_is_set(part, values) for part in rule.split("+")) for rule in platform.variables):
        return True
    return any(_is_there(root / path) for path in platform.paths)


def _is_set(rule: str, values: Mapping[str, str]) -> bool:
    name, wants_value, value = rule.partition("=")
    return name in values and (not wants_value or values[name] == value)


def _is_there(path: Path) -> bool:
    try:
        return os.path.exists(path)
    except OSError:  # a folder that we may not look into
        return False


def spots_here(
    platform: Platform, environment: Mapping[str, str] | None = None, *, root: Path = Path("/")
) -> tuple[Spot, ...]:
    """The platform's spots that are folders here, with ``~``, ``$NAME`` and ``*`` filled in; each path once.

    Args:
        platform: a row of `PLATFORMS`.
        environment: variables; None takes those of the process.
        root: root of the file system; a fake one in tests. The paths given back do not hold it.
    """
    values = os.environ if environment is None else environment
    found: dict[str, Spot] = {}
    for spot in platform.spots:
        for path in _filled(spot.path, values, root):
            found.setdefault(path, replace(spot, path=path))
    return tuple(found.values())


def _filled(template: str, values: Mapping[str, str], root: Path) -> Iterator[str]:
    """Folders that a spot's path stands for; none when a variable is not set, or not to an absolute path."""
    if template.startswith("~"):
        template = (values.get("HOME") or "/") + template[1:]
    missing = [name for name in re.findall(r"\$(\w+)", template) if not values.get(name)]
    text = os.path.normpath(re.sub(r"\$(\w+)", lambda match: values.get(match[1], ""), template))
    if missing or not text.startswith("/"):
        return
    inside = text.lstrip("/")
    if "*" not in template:
        if _is_folder(root / inside):
            yield "/" + inside
        return
    for path in sorted(root.glob(inside)):
        if _is_folder(path):
            yield "/" + str(path.relative_to(root))


def _is_folder(path: Path) -> bool:
    try:
        return os.path.isdir(path)
    except OSError:
        return False
