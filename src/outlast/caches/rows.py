"""The caches that machine-learning tools leave behind: a table.

Facts are those of November 2026; where they are from is in docs/caches.md. Libraries are not imported to find their
paths (``import datasets.config`` takes 730 ms): their rules are in the rows, and `catalogue` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Cost(Enum):
    """What it costs to make something again; in this order things are given up."""

    SECONDS = 1
    """Nothing but a moment: partial downloads that no tool resumes, a font list."""
    MINUTES = 2
    """Compiling or extracting again."""
    DOWNLOAD = 3
    """Downloading again, gigabytes maybe."""
    NEVER = 4
    """It cannot be made again: credentials, results, models that the user asked for."""


class Sweep(Enum):
    """How a cache is swept."""

    NEVER = "never"
    """It is no cache: results, credentials, settings."""
    ENTRIES = "entries"
    """Each file or folder directly in it is a thing of its own that may go."""
    HUB = "hub"
    """By Hugging Face's rules: revisions, blobs, partial downloads, the shared store."""
    DATASETS = "datasets"
    """By the rules of ``datasets``: partial builds and the results of ``map``."""
    TOOL = "tool"
    """By the owner's own command alone; it shares its files with others by hard links, or keeps an index."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A row: one kind of thing that some tool keeps on disk."""

    id: str
    """Stable name, for the command line and the journal."""
    owner: str
    """Library or tool that reads it."""
    variables: tuple[str, ...]
    """Variables that name its place, the strongest first."""
    default: str | None
    """Where it is when none is set; ``{home}``, ``{xdg}``, ``{data}``, ``{config}``, ``{tmp}``, ``{user}``, ``{cwd}``,
    ``{ID}`` of a row above, ``{NAME:word}`` for a variable that moves a parent. None: nowhere, it is off."""
    holds: str
    """What is in it."""
    sweep: Sweep
    """How it is swept."""
    cost: Cost
    """What it costs to make again."""
    role: str = "data"
    """Where it belongs: ``data`` (large files: the roomy volume), ``small`` (many small files: fast and local),
    ``results`` (kept volume), ``none`` (never moved)."""
    expands: frozenset[str] = frozenset()
    """What the owner expands in a value, ``~`` and ``$``. What it doesn't becomes a folder of that very name."""
    default_expands: frozenset[str] | None = None
    """What the owner expands in the variables that its default is made from; None: as in its own."""
    suffix: str = ""
    """Appended to a variable's value by the owner."""
    separator: str = ""
    """What separates places in a value that may hold several; the first counts."""
    blank: bool = False
    """True when the owner takes an empty value for a place: the cache is then in whatever folder a command runs in."""
    command: tuple[str, ...] = ()
    """The owner's own command that frees it."""
    locks: tuple[str, ...] = ()
    """Globs below it: lock files that are held while it is in use."""
    idle_minutes: float = 10.0
    """In use while anything in it is younger than this."""
    traps: str = ""
    """What goes wrong when it is moved or cleaned by hand."""
    ignored: bool = False
    """True for a variable that nobody reads any more: old folders may still be where it points."""


_BOTH = frozenset("~$")
_TILDE = frozenset("~")
_COMPILED = 120.0
"""Minutes: a compiler's files are read once and closed, so that no lease tells that a process still counts on them."""

CATALOGUE: tuple[Cache, ...] = (
    Cache(
        "hf-home", "huggingface_hub", ("HF_HOME",), "{xdg}/huggingface",
        "the parent of the others, with the login token, accelerate's settings and trackio's results in it",
        Sweep.NEVER, Cost.NEVER, role="none", expands=_BOTH, blank=True,
        traps="deleting it whole loses credentials and results; moving it loses the login and may publish the token",
    ),
    Cache(
        "hf-token", "huggingface_hub", ("HF_TOKEN_PATH",), "{hf-home}/token", "the login token",
        Sweep.NEVER, Cost.NEVER, role="none", expands=_BOTH, blank=True,
    ),
    Cache(
        "hf-stored-tokens", "huggingface_hub", (), "{hf-token}/../stored_tokens", "all login tokens",
        Sweep.NEVER, Cost.NEVER, role="none", expands=_BOTH,
    ),
    Cache(
        "hf-accelerate", "accelerate", (), "{hf-home}/accelerate", "settings of accelerate config",
        Sweep.NEVER, Cost.NEVER, role="none", expands=_TILDE,
    ),
    Cache(
        "trackio", "trackio", ("TRACKIO_DIR",), "{hf-home}/trackio", "results of experiments (SQLite)",
        Sweep.NEVER, Cost.NEVER, role="results", default_expands=_BOTH,
        traps="it lies inside HF_HOME, which many guides delete whole",
    ),
    Cache(
        "hf-hub", "huggingface_hub", ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"), "{hf-home}/hub",
        "models and data sets from the hub, shared blobs", Sweep.HUB, Cost.DOWNLOAD, expands=_BOTH, blank=True,
        locks=(".locks/**/*.lock",),
        traps="rm -rf of a repository frees nothing where blobs are shared; one dangling link hides it from hf cache",
    ),
    Cache(
        "hf-xet", "hf-xet", ("HF_XET_CACHE",), "{hf-home}/xet", "chunk indexes, uploads being staged, logs",
        Sweep.ENTRIES, Cost.MINUTES, default_expands=_BOTH, blank=True,
        traps="deleting staging/ loses the resumption of an upload; ~ is not expanded",
    ),
    Cache(
        "hf-assets", "huggingface_hub", ("HF_ASSETS_CACHE", "HUGGINGFACE_ASSETS_CACHE"), "{hf-home}/assets",
        "what libraries built on the hub keep, a folder each", Sweep.TOOL, Cost.DOWNLOAD, expands=_BOTH, blank=True,
    ),
    Cache(
        "hf-datasets", "datasets", ("HF_DATASETS_CACHE",), "{hf-home}/datasets", "Arrow builds and results of map",
        Sweep.DATASETS, Cost.DOWNLOAD, expands=_TILDE, blank=True, locks=("*.lock", "**/*_builder.lock"),
        traps="a quoted $HOME is a folder of that name; a build can only be made again while its source can be reached",
    ),
    Cache(
        "hf-datasets-downloads", "datasets", ("HF_DATASETS_DOWNLOADED_DATASETS_PATH",), "{hf-datasets}/downloads",
        "what scripts downloaded from elsewhere", Sweep.ENTRIES, Cost.DOWNLOAD, expands=_TILDE, blank=True,
        locks=("*.lock",),
    ),
    Cache(
        "hf-datasets-extracted", "datasets", ("HF_DATASETS_EXTRACTED_DATASETS_PATH",),
        "{hf-datasets}/downloads/extracted", "archives, unpacked", Sweep.ENTRIES, Cost.MINUTES, expands=_TILDE,
        blank=True, locks=("*.lock",),
    ),
    Cache(
        "hf-modules", "transformers", ("HF_MODULES_CACHE",), "{hf-home}/modules", "code that came with models (.py)",
        Sweep.NEVER, Cost.SECONDS, role="none", default_expands=_BOTH, blank=True,
        traps="tiny; deleting it breaks imports and pickles of a run that goes on",
    ),
    Cache(
        "sentence-transformers", "sentence-transformers", ("SENTENCE_TRANSFORMERS_HOME",), None,
        "models, laid out as the hub's cache; unset they are in that", Sweep.HUB, Cost.DOWNLOAD,
        locks=(".locks/**/*.lock",), traps="set, models that transformers loads too are there twice",
    ),
    Cache(
        "transformers-dead", "transformers", ("TRANSFORMERS_CACHE",), None, "models of years ago", Sweep.HUB,
        Cost.DOWNLOAD, role="none", ignored=True, traps="transformers below 5 reads it; set HF_HUB_CACHE instead",
    ),
    Cache(
        "pytorch-transformers-dead", "transformers", ("PYTORCH_TRANSFORMERS_CACHE",), None, "models of years ago",
        Sweep.HUB, Cost.DOWNLOAD, role="none", ignored=True,
        traps="transformers below 5 reads it; set HF_HUB_CACHE instead",
    ),
    Cache(
        "pytorch-bert-dead", "transformers", ("PYTORCH_PRETRAINED_BERT_CACHE",), None, "models of years ago",
        Sweep.HUB, Cost.DOWNLOAD, role="none", ignored=True,
        traps="transformers below 5 reads it; set HF_HUB_CACHE instead",
    ),
    Cache(
        "torch", "torch", ("TORCH_HOME",), "{xdg}/torch", "weights and code of torch.hub", Sweep.ENTRIES, Cost.DOWNLOAD,
        expands=_TILDE, blank=True,
    ),
    Cache(
        "torch-extensions", "torch", ("TORCH_EXTENSIONS_DIR",), "{xdg}/torch_extensions",
        "C++ and CUDA extensions, built on first use", Sweep.ENTRIES, Cost.MINUTES, role="small",
        default_expands=frozenset(), blank=True, idle_minutes=_COMPILED, locks=("**/lock",),
        traps="a lock file that a killed build leaves makes the next one wait for ever (pytorch#189245)",
    ),
    Cache(
        "inductor", "torch", ("TORCHINDUCTOR_CACHE_DIR",), "{tmp}/torchinductor_{user}",
        "what torch.compile generated, and Triton's kernels of it", Sweep.ENTRIES, Cost.MINUTES, role="small",
        blank=True, idle_minutes=_COMPILED,
        traps="/tmp may be memory (pytorch#121122); cleaned below a process that compiles, it fails (pytorch#151466)",
    ),
    Cache(
        "triton", "triton", ("TRITON_CACHE_DIR",), "{TRITON_HOME:home}/.triton/cache", "compiled kernels, 7 files each",
        Sweep.ENTRIES, Cost.MINUTES, role="small", blank=True, idle_minutes=_COMPILED,
        traps="holds absolute paths: moved, all is compiled again; on NFS a kernel may be stale (pytorch#173679)",
    ),
    Cache(
        "cuda", "the NVIDIA driver", ("CUDA_CACHE_PATH",), "{home}/.nv/ComputeCache", "kernels compiled from PTX",
        Sweep.ENTRIES, Cost.MINUTES, role="small", idle_minutes=_COMPILED,
    ),
    Cache(
        "jax", "jax", ("JAX_COMPILATION_CACHE_DIR",), None, "compiled programs; off unless set", Sweep.ENTRIES,
        Cost.MINUTES, role="small", idle_minutes=_COMPILED, traps="grows without limit",
    ),
    Cache(
        "numba", "numba", ("NUMBA_CACHE_DIR",), None, "compiled functions; unset, beside their source", Sweep.ENTRIES,
        Cost.MINUTES, role="small",
    ),
    Cache(
        "unsloth", "unsloth", ("UNSLOTH_COMPILE_LOCATION",), "{cwd}/unsloth_compiled_cache", "generated modules",
        Sweep.ENTRIES, Cost.MINUTES, role="none", idle_minutes=_COMPILED,
        traps="one for each folder that a run starts in, and on sys.path: a run that goes on imports from it",
    ),
    Cache(
        "vllm", "vllm", ("VLLM_CACHE_ROOT",), "{xdg}/vllm", "compiled graphs, assets", Sweep.ENTRIES, Cost.MINUTES,
        role="small", expands=_TILDE, blank=True, idle_minutes=_COMPILED,
    ),
    Cache(
        "wandb", "wandb", ("WANDB_DIR",), "{cwd}/wandb", "runs, maybe not uploaded yet", Sweep.NEVER, Cost.NEVER,
        role="results", expands=_TILDE, suffix="/wandb",
        traps="wandb clean takes any run older than a day, also one that goes on or was never uploaded",
    ),
    Cache(
        "wandb-data", "wandb", ("WANDB_DATA_DIR",), "{data}/wandb", "copies of artifacts on their way up", Sweep.NEVER,
        Cost.NEVER, expands=_TILDE, blank=True, traps="what is not uploaded yet is only there; grows for ever (#7673)",
    ),
    Cache(
        "wandb-cache", "wandb", ("WANDB_CACHE_DIR",), "{xdg}/wandb", "artifacts that were downloaded", Sweep.ENTRIES,
        Cost.DOWNLOAD, blank=True, command=("wandb", "artifact", "cache", "cleanup", "0B"),
        traps="grows without limit (#8781: 1.6 TB); the owner's cleanup counts bytes that it failed to remove",
    ),
    Cache(
        "wandb-artifacts", "wandb", ("WANDB_ARTIFACT_DIR",), "{cwd}/artifacts", "artifacts that you downloaded",
        Sweep.NEVER, Cost.NEVER, role="none",
    ),
    Cache(
        "wandb-config", "wandb", ("WANDB_CONFIG_DIR",), "{config}/wandb", "settings", Sweep.NEVER, Cost.NEVER,
        role="none", expands=_TILDE,
    ),
    Cache(
        "mlflow", "mlflow", ("MLFLOW_TRACKING_DIR",), "{cwd}/mlruns", "results of experiments", Sweep.NEVER, Cost.NEVER,
        role="none",
    ),
    Cache(
        "mlflow-envs", "mlflow", ("MLFLOW_ENV_ROOT",), "{home}/.mlflow/envs", "environments of models", Sweep.TOOL,
        Cost.DOWNLOAD, role="none", traps="a served model runs from it",
    ),
    Cache(
        "tensorboard", "tensorboard", (), "{cwd}/runs", "results of experiments", Sweep.NEVER, Cost.NEVER, role="none",
    ),
    Cache(
        "lightning-logs", "lightning", (), "{cwd}/lightning_logs", "results of experiments, checkpoints", Sweep.NEVER,
        Cost.NEVER, role="none",
    ),
    Cache(
        "kagglehub", "kagglehub", ("KAGGLEHUB_CACHE",), "{home}/.cache/kagglehub", "models and data sets",
        Sweep.ENTRIES, Cost.DOWNLOAD, blank=True, traps="XDG_CACHE_HOME does not move it",
    ),
    Cache(
        "keras", "keras", ("KERAS_HOME",), "{home}/.keras", "weights, data sets, and settings (keras.json)",
        Sweep.ENTRIES, Cost.DOWNLOAD, blank=True, traps="keras.json in it is yours; moved, its settings are not found",
    ),
    Cache(
        "tfds", "tensorflow-datasets", ("TFDS_DATA_DIR",), "{home}/tensorflow_datasets", "built data sets",
        Sweep.ENTRIES, Cost.DOWNLOAD, blank=True,
    ),
    Cache(
        "tfhub", "tensorflow-hub", ("TFHUB_CACHE_DIR",), "{tmp}/tfhub_modules", "models", Sweep.ENTRIES, Cost.DOWNLOAD,
    ),
    Cache(
        "nltk", "nltk", ("NLTK_DATA",), "{home}/nltk_data", "corpora and models", Sweep.ENTRIES, Cost.DOWNLOAD,
        expands=_TILDE, separator=":", traps="a search path: several folders may be in use",
    ),
    Cache(
        "matplotlib", "matplotlib", ("MPLCONFIGDIR",), "{config}/matplotlib", "settings and a font list", Sweep.NEVER,
        Cost.SECONDS, role="none",
    ),
    Cache(
        "litdata", "litdata", ("LITDATA_CACHE_DIR",), "{home}/.lightning/chunks", "shards of streamed data sets",
        Sweep.NEVER, Cost.DOWNLOAD, traps="an old cache can stop a new stream (litdata#398)",
    ),
    Cache(
        "streaming", "mosaicml-streaming", (), None, "shards, in a folder that the script names or a hash below TMPDIR",
        Sweep.NEVER, Cost.NEVER, role="none", traps="eviction deleted the only copy of a data set (streaming#988)",
    ),
    Cache(
        "gradience", "gradience", ("GRADIENCE_CACHE_DIR",), "{xdg}/gradience", "norms of base models", Sweep.ENTRIES,
        Cost.MINUTES,
    ),
    Cache(
        "pip", "pip", ("PIP_CACHE_DIR",), "{xdg}/pip", "wheels and http answers", Sweep.ENTRIES, Cost.DOWNLOAD,
        role="small", expands=_TILDE, default_expands=frozenset(), command=("pip", "cache", "purge"),
    ),
    Cache(
        "uv", "uv", ("UV_CACHE_DIR",), "{xdg}/uv", "archives, hard-linked into environments", Sweep.TOOL, Cost.DOWNLOAD,
        role="none", command=("uv", "cache", "prune"),
        traps="not safe to change by hand; on another volume than the environments it copies (uv#15875)",
    ),
    Cache(
        "conda", "conda", ("CONDA_PKGS_DIRS",), None, "packages, hard-linked into environments",
        Sweep.TOOL, Cost.DOWNLOAD, role="none", command=("conda", "clean", "--tarballs", "--packages", "--yes"),
        separator=",",
        traps="its size is not what goes free: files are shared with the environments; unset, it is in conda's folder",
    ),
    Cache(
        "ollama", "ollama", ("OLLAMA_MODELS",), "{home}/.ollama/models", "models that you asked for", Sweep.NEVER,
        Cost.NEVER, role="none", command=("ollama", "rm"), traps="no cache: what you pulled stays until you remove it",
    ),
    Cache(
        "ray", "ray", (), "{RAY_TMPDIR:tmp}/ray", "logs and spilled objects of sessions", Sweep.NEVER, Cost.NEVER,
        role="none", traps="a session that goes on lies beside dead ones",
    ),
    Cache(
        "shm", "torch, ray, streaming", (), "/dev/shm", "memory that processes share", Sweep.NEVER, Cost.NEVER,
        role="none", traps="memory, 64 MB in a container by default: full with an empty disk (Megatron-LM#878)",
    ),
)  # fmt: skip
"""Every cache that Outlast knows, parents before what is in them. Adding one is adding a row."""
