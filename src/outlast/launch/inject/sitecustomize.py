"""Runs at the start of every Python process of a guarded run: shakes hands, hooks the savers, chains to the user's own.

Standard library only, and next to nothing of it: this is in the start of each child. The training interpreter may not
be Outlast's (another version, another environment), so `outlast` is made importable by a finder for that one package,
not by adding a site-packages folder. Nothing in here may break the child: each door swallows what goes wrong.

An interpreter older than 3.11 reads this file too (its syntax is that of 3.6), says so in the handshake, and is left
alone.
"""

import os
import sys
import time

HOOKS = {
    "torch.serialization": "outlast.integrations.torch_save:install",
    "torch.distributed.checkpoint.state_dict_saver": "outlast.integrations.torch_checkpoint:install",
    "transformers.trainer": "outlast.integrations.transformers:install",
    "transformers.trainer_utils": "outlast.integrations.transformers:install_utils",
    "datasets.arrow_dataset": "outlast.integrations.datasets.map_guard:install",
    "datasets.builder": "outlast.integrations.datasets.building:install",
    "datasets.load": "outlast.integrations.datasets.load:install",
    "accelerate.accelerator": "outlast.integrations.accelerate:install",
    "lightning.fabric.plugins.io.torch_io": "outlast.integrations.lightning:install_io",
    "lightning_fabric.plugins.io.torch_io": "outlast.integrations.lightning:install_io",
    "lightning.pytorch.callbacks.model_checkpoint": "outlast.integrations.lightning:install_callback",
    "pytorch_lightning.callbacks.model_checkpoint": "outlast.integrations.lightning:install_callback",
    "lightning.pytorch.trainer.connectors.checkpoint_connector": "outlast.integrations.lightning:install_resume",
    "pytorch_lightning.trainer.connectors.checkpoint_connector": "outlast.integrations.lightning:install_resume",
}
"""Defining module and what to call with it when its import ends. Not a re-export: it would wrap twice."""

PLAN_HOOKS = {
    "transformers.trainer": "outlast.integrations.transformers.planning:install",
    "lightning.pytorch.trainer.trainer": "outlast.integrations.lightning.planning:install",
    "pytorch_lightning.trainer.trainer": "outlast.integrations.lightning.planning:install",
    "torch.optim.optimizer": "outlast.integrations.planning:install",
}
"""The same for `outlast plan`: what leaves with the script's arguments where its training would begin."""

_ANSWER = os.environ.get("OUTLAST_PLAN")
_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100 - pathlib costs more than all of this file
_SUPPORTED = sys.version_info >= (3, 11)


def _quoted(value: object) -> str:
    # The C half of json alone: importing json itself costs as much as all of this file.
    from _json import encode_basestring_ascii

    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_quoted(item) for item in value) + "]"
    return str(encode_basestring_ascii(str(value)))


def _journal(event: str, **facts: object) -> None:
    """One line in this process's journal file; the form is that of outlast/journal.py. Never raises."""
    try:
        folder = os.path.join(os.environ["OUTLAST_DIR"], ".outlast", "journal", os.environ["OUTLAST_RUN"])
        pairs = [("t", None), ("pid", os.getpid()), ("event", event)] + list(facts.items())
        body = ",".join(_quoted(name) + ":" + _quoted(value) for name, value in pairs[1:])
        line = '{"t":%.4f,%s}\n' % (time.time(), body)  # noqa: UP031 - read by Python 3.6 too
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(os.path.join(folder, "%d.jsonl" % os.getpid()), flags, 0o644)  # noqa: UP031
        try:
            start = os.fstat(fd).st_size
            if os.write(fd, line.encode()) != len(line):
                os.ftruncate(fd, start)
        finally:
            os.close(fd)
    except Exception:
        # A full disk, a folder that is gone, an odd interpreter: the child's life comes first.
        pass


def _is_multiprocessing_child(argv: list) -> bool:  # type: ignore[type-arg]
    """Spawned workers, fork servers and resource trackers: they belong to a process that has shaken hands."""
    return "--multiprocessing-fork" in argv or any("from multiprocessing." in word for word in argv[:8])


class _Loader:
    """Stands in for a module's loader until its code has run, then steps aside: reload and pickle see the real one."""

    def __init__(self, loader: object, after: object) -> None:
        self._outlast = (loader, after)

    def create_module(self, spec: object) -> object:
        return self._outlast[0].create_module(spec)  # type: ignore[attr-defined]

    def exec_module(self, module: object) -> None:
        loader, after = self._outlast
        module.__loader__ = loader  # type: ignore[attr-defined]
        if getattr(module, "__spec__", None) is not None:
            module.__spec__.loader = loader  # type: ignore[attr-defined]
        loader.exec_module(module)  # type: ignore[attr-defined]
        after(module)  # type: ignore[operator]

    def __getattr__(self, name: str) -> object:
        if name == "_outlast":
            raise AttributeError(name)
        return getattr(self._outlast[0], name)

    def __reduce__(self) -> tuple:  # type: ignore[type-arg]
        return (_itself, (self._outlast[0],))


def _itself(loader: object) -> object:
    return loader


class _Finder:
    """First on sys.meta_path: finds outlast itself, and wraps the loader of each module in `HOOKS`."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.after = dict.fromkeys(PLAN_HOOKS if _ANSWER else HOOKS, _call_hook)
        if not _ANSWER:
            self.after["threading"] = _hook_threads

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name == "outlast":
            return self._outlast()
        after = self.after.get(name)
        if after is None:
            return None
        itself: object = self
        for finder in sys.meta_path:
            find = None if finder is itself else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, after)
                return spec
        return None

    def _outlast(self) -> object:
        import _frozen_importlib_external as external

        return external.spec_from_file_location(
            "outlast", os.path.join(self.package, "__init__.py"), submodule_search_locations=[self.package]
        )


def _call_hook(module: object) -> None:
    name = module.__name__  # type: ignore[attr-defined]
    try:
        home, _, function = (PLAN_HOOKS if _ANSWER else HOOKS)[name].partition(":")
        __import__(home)
        getattr(sys.modules[home], function)(module)
    except Exception as error:
        if _ANSWER:
            _leave("%s cannot be planned for: %s: %s" % (name, type(error).__name__, error))  # noqa: UP031
        _journal("hook_failed", module=name, hook=HOOKS.get(name), error="%s: %s" % (type(error).__name__, error))  # noqa: UP031


def _leave(why: str) -> None:
    """End a process that was to be planned for and would train instead."""
    sys.stderr.write("outlast: " + why + "\n")
    sys.stderr.flush()
    os._exit(70)


def _record(error: object, trace: object, thread: object = None) -> None:
    """Write an uncaught exception to the journal. At the end of a process anything may fail, memory included."""
    if isinstance(error, KeyboardInterrupt):
        # Any eval() in an excepthook (an import of collections has one) makes Python forget to end by SIGINT.
        _journal("exception", thread=thread, type="KeyboardInterrupt", message="", cause="INTERRUPT")
        return
    try:
        import _frozen_importlib_external as external

        path = os.path.join(os.path.dirname(_HERE), "last_words.py")
        words = type(sys)("_outlast_last_words")
        external.SourceFileLoader(words.__name__, path).exec_module(words)
        facts = words.describe(error, trace)
    except BaseException:
        facts = {"type": type(error).__name__, "message": "", "cause": "EXCEPTION"}
    _journal("exception", thread=thread, **facts)


def _hook_exceptions() -> None:
    previous = sys.excepthook

    def excepthook(kind: object, error: object, trace: object) -> None:
        _record(error, trace)
        previous(kind, error, trace)  # type: ignore[arg-type]

    sys.excepthook = excepthook


def _hook_threads(module: object) -> None:
    previous = module.excepthook  # type: ignore[attr-defined]

    def excepthook(args: object) -> None:
        if args.exc_type is not SystemExit:  # type: ignore[attr-defined]
            thread = args.thread  # type: ignore[attr-defined]
            _record(args.exc_value, args.exc_traceback, thread.name if thread else "?")  # type: ignore[attr-defined]
        previous(args)

    module.excepthook = excepthook  # type: ignore[attr-defined]


def _start() -> None:
    package = os.environ.get("OUTLAST_PACKAGE")
    if not package or not (_ANSWER or os.environ.get("OUTLAST_RUN")):
        return
    if _ANSWER:
        os.close(os.open(_ANSWER + ".met", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if not _SUPPORTED:
            _leave("plans need Python 3.11 or newer, this is %d.%d" % sys.version_info[:2])  # noqa: UP031
    argv = list(getattr(sys, "orig_argv", None) or getattr(sys, "argv", None) or ())
    if not _is_multiprocessing_child(argv):
        version = ".".join(str(part) for part in sys.version_info[:3])
        shown = [word[:200] for word in argv[:20]]
        _journal("hooked", python=sys.executable, version=version, supported=_SUPPORTED, argv=shown)
        if _SUPPORTED and not _ANSWER:
            _hook_exceptions()
    if not _SUPPORTED:
        return
    finder = _Finder(package)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    for name, after in finder.after.items():
        # Imported already, by a .pth file: there is no import left to wait for.
        if name in sys.modules:
            after(sys.modules[name])


def _chain() -> None:
    """Run the sitecustomize that ours stands before, under its own name, as if we were not there."""
    import _frozen_importlib_external as external

    others = [part for part in sys.path if os.path.abspath(part or ".") != _HERE]  # noqa: PTH100
    spec = external.PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    module = type(sys)("sitecustomize")
    module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


try:
    _start()
except Exception as problem:
    _journal("hook_failed", module="sitecustomize", hook="start", error=str(problem))
_chain()
