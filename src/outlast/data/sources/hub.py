"""Data sets of the Hugging Face hub by name: ``hf://datasets/org/name[@revision][/folder or pattern]``.

huggingface_hub finds the files, with the user's token and endpoint. What is in its cache already is read there; the
rest is read by ranges, at the commit that the revision stands for. Where the branch has no Parquet files, those that
the hub made of it are taken (``refs/convert/parquet``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from huggingface_hub import HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers

from outlast.data.formats import FORMATS, form_of
from outlast.data.sources.http import Ranged
from outlast.data.sources.interface import SourceFile
from outlast.data.sources.listing import below
from outlast.data.sources.local import changed
from outlast.data.sources.patience import NoAnswer, Passing, Patience, asked_wait
from outlast.data.sources.web import Web
from outlast.errors import BadInput

_CONVERTED = "refs/convert/parquet"
_TRANSPORTS = ("httpx", "httpcore", "requests", "urllib3")
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class HubSource:
    """One data set of the hub, at one commit.

    Args:
        text: its address.
        patience: how failures are met.
    """

    is_remote = True

    def __init__(self, text: str, patience: Patience | None = None) -> None:
        self._id, revision, wanted = parse(text)
        self.name = text
        self._patience = patience or Patience()
        self._api = HfApi()
        self._sizes: dict[str, tuple[int, str | None]] = {}
        self.revision, names = self._listed(revision)
        if revision is None and not wanted and not any(_is_parquet(name) for name in names):
            converted = self._converted()
            if converted is not None:
                self.revision, names = converted
        chosen = below(names, wanted, text)
        _one_configuration(chosen.paths, text)
        self._paths, self.notes = chosen.paths, chosen.notes
        self._web = Web(build_hf_headers())
        self._ranged = Ranged(self._web, self._patience)

    def _listed(self, revision: str | None) -> tuple[str, list[str]]:
        def ask() -> tuple[str, list[str]]:
            try:
                info = self._api.dataset_info(self._id, revision=revision)
                sha = info.sha or revision or constants.DEFAULT_REVISION
                tree = self._api.list_repo_tree(self._id, recursive=True, revision=sha, repo_type="dataset")
                files = [entry for entry in tree if hasattr(entry, "size")]
            except GatedRepoError:
                raise BadInput(
                    f"{self.name} is gated", hint="ask for access on its page, then: hf auth login"
                ) from None
            except RepositoryNotFoundError:
                hint = "look at the name; a private one needs: hf auth login"
                raise BadInput(f"there is no data set {self._id} on the hub", hint=hint) from None
            except RevisionNotFoundError:
                raise BadInput(f"{self._id} has no revision {revision!r}", hint="a branch, tag or commit") from None
            except OfflineModeIsEnabled:
                raise BadInput(f"{self.name}: the hub is switched off (HF_HUB_OFFLINE)", hint="unset it") from None
            except HfHubHTTPError as error:
                status = error.response.status_code if error.response is not None else None
                if status in _PASSING:
                    raise Passing(str(status), asked_wait(error.response.headers.get("Retry-After"))) from error
                raise BadInput(f"{self.name}: the hub says {status}", hint="look at the name and the token") from None
            except Exception as error:  # the library's errors of transport: OSError, or those of its HTTP package
                if not isinstance(error, OSError) and not type(error).__module__.startswith(_TRANSPORTS):
                    raise
                raise NoAnswer(str(error) or type(error).__name__) from error
            self._sizes |= {file.path: (file.size, _blob(file)) for file in files}
            return sha, [file.path for file in files]

        return self._patience.try_until_done(self.name, ask)

    def _converted(self) -> tuple[str, list[str]] | None:
        try:
            return self._listed(_CONVERTED)
        except BadInput:
            return None

    def paths(self) -> tuple[str, ...]:
        """Files of the repository."""
        return self._paths

    def look(self, path: str, part: str) -> SourceFile:
        """Size and blob, as the listing has them."""
        size, blob = self._sizes[path]
        return SourceFile(path, size, blob)

    def read(self, file: SourceFile, start: int, stop: int) -> bytes:
        """A range of a file, from the hub's cache where it is there."""
        here = self.local(file.path)
        if here is not None:
            with Path(here).open("rb") as opened:
                opened.seek(start)
                found = opened.read(stop - start)
            if len(found) == stop - start:
                return found
            raise changed(here, f"it ends at byte {start + len(found):,}, not {stop:,}")
        url = hf_hub_url(self._id, file.path, repo_type="dataset", revision=self.revision)
        # Not compared by ETag: behind the hub other servers give the bytes. The commit in the address says which.
        return self._ranged.read(url, file, start, stop, check=False)

    def sequential(self, file: SourceFile) -> Iterator[bytes] | None:
        """None: the hub knows ranges."""
        return None

    def traveled(self) -> int:
        """Bytes of content received."""
        return self._web.traveled()

    def local(self, path: str) -> str | None:
        """Where the hub's cache has a file of this commit."""
        found = try_to_load_from_cache(self._id, path, repo_type="dataset", revision=self.revision)
        return found if isinstance(found, str) else None

    def close(self) -> None:
        """Close the connections, and wait for none."""
        self._patience.stopped.set()
        self._web.close()


def parse(text: str) -> tuple[str, str | None, str]:
    """Repository, revision and what is wanted of it.

    Raises:
        BadInput: another address.
    """
    rest = text.removeprefix("hf://")
    kind, _, rest = rest.partition("/")
    words = rest.split("/")
    # A revision with slashes is written with %2F, as in huggingface_hub's own addresses; refs/... needs none.
    organisation, name = (words + ["", ""])[:2]
    name, at, revision = name.partition("@")
    left = words[2:]
    if at and revision == "refs" and len(left) >= 2:
        revision, left = "/".join([revision, *left[:2]]), left[2:]
    if kind != "datasets" or not organisation or not name or (at and not revision):
        raise BadInput(
            f"expected hf://datasets/org/name[@revision][/pattern], got {text!r}",
            hint="for example hf://datasets/Skylion007/openwebtext",
        )
    return f"{organisation}/{name}", unquote(revision) or None, "/".join(left)


def _blob(file: Any) -> str | None:
    lfs = getattr(file, "lfs", None)
    return (lfs.sha256 if lfs is not None else None) or getattr(file, "blob_id", None)


def _is_parquet(name: str) -> bool:
    form = form_of(name)
    return form is not None and FORMATS[form].kind == "parquet"


def _one_configuration(paths: tuple[str, ...], text: str) -> None:
    """Several configurations in one repository are several data sets.

    Raises:
        BadInput: names them.
    """
    tops = sorted({path.split("/")[0] for path in paths if "/" in path} - {"data"})
    if len(tops) > 1 and not text.partition("datasets/")[2].count("/") > 1:
        shown = ", ".join(tops[:20]) + (" ..." if len(tops) > 20 else "")
        raise BadInput(f"{text} holds several data sets: {shown}", hint=f"name one of them: {text}/{tops[0]}")
