"""Object stores: s3://, gs://, az://, through obstore, and so with the credentials that the environment holds.

obstore retries by itself, with back-off; what it gives up on is tried again here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import from_url

from outlast.data.sources.interface import SourceFile
from outlast.data.sources.listing import below, fixed_part
from outlast.data.sources.local import changed
from outlast.data.sources.patience import Passing, Patience
from outlast.errors import BadInput, SourceFailed


class ObjectSource:
    """Objects below an address, by a prefix or a pattern.

    Args:
        text: ``s3://bucket/folder``, ``s3://bucket/folder/*.parquet`` and so on.
        patience: how failures are met.
        store: in place of the one that the address names.
    """

    revision = None
    is_remote = True

    def __init__(self, text: str, patience: Patience | None = None, store: Any = None) -> None:
        scheme, _, rest = text.partition("://")
        bucket, _, wanted = rest.partition("/")
        if not bucket:
            raise BadInput(f"expected {scheme}://bucket/folder, got {text!r}", hint="name the bucket")
        self.name = text
        self._patience = patience or Patience(tries=3)
        self._lock = threading.Lock()
        self._traveled = 0
        try:
            self._store = store or from_url(f"{scheme}://{bucket}")
        except (BaseError, ValueError) as error:
            raise BadInput(f"{text}: {_short(error)}", hint="look at the address and the environment's keys") from None
        self._seen = self._patience.try_until_done(text, lambda: self._listed(fixed_part(wanted)))
        chosen = below(list(self._seen), wanted, text)
        self._paths, self.notes = chosen.paths, chosen.notes

    def _listed(self, prefix: str) -> dict[str, tuple[int, str | None]]:
        found: dict[str, tuple[int, str | None]] = {}
        with _said(self.name):
            if prefix:
                # A prefix of a store is a folder; the address may also name one object.
                try:
                    meta = obstore.head(self._store, prefix)
                    return {meta["path"]: (meta["size"], meta.get("e_tag"))}
                except (NotFoundError, FileNotFoundError):
                    pass
            for page in obstore.list(self._store, prefix or None):
                found |= {meta["path"]: (meta["size"], meta.get("e_tag")) for meta in page}
        return found

    def paths(self) -> tuple[str, ...]:
        """Keys in the bucket."""
        return self._paths

    def look(self, path: str, part: str) -> SourceFile:
        """Size and ETag, as the listing has them."""
        size, version = self._seen[path]
        return SourceFile(path, size, version)

    def read(self, file: SourceFile, start: int, stop: int) -> bytes:
        """A range of an object that has not changed."""
        options: Any = {"range": (start, stop)}
        if file.version:
            options["if_match"] = file.version

        def ask() -> bytes:
            with _said(f"{self.name}: {file.path}"):
                return bytes(obstore.get(self._store, file.path, options=options).bytes())

        found = self._patience.try_until_done(file.path, ask)
        with self._lock:
            self._traveled += len(found)
        if len(found) != stop - start:
            raise changed(file.path, f"it ends at byte {start + len(found):,}, not {stop:,}")
        return found

    def sequential(self, file: SourceFile) -> Iterator[bytes] | None:
        """None: any part can be had."""
        return None

    def traveled(self) -> int:
        """Bytes of content received."""
        return self._traveled

    def local(self, path: str) -> str | None:
        """None: it lies elsewhere."""
        return None

    def close(self) -> None:
        """Wait for no answer any more."""
        self._patience.stopped.set()


class _said:
    """Context that turns obstore's errors into ours."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Nothing yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (NotFoundError, FileNotFoundError)):
            raise BadInput(f"{self._where} is not there", hint="look at the name of bucket and object") from error
        if isinstance(error, (PermissionDeniedError, UnauthenticatedError, PermissionError)):
            raise BadInput(f"{self._where} may not be read", hint="look at the environment's keys") from error
        if isinstance(error, PreconditionError):
            raise changed(self._where, "its ETag is another one") from error
        if isinstance(error, BaseError) and "169.254.169.254" in str(error):
            raise BadInput(
                f"{self._where}: no keys in the environment, and this machine has none of its own",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (GOOGLE_..., AZURE_...), or for a public bucket "
                "AWS_SKIP_SIGNATURE=true",
            ) from error
        if isinstance(error, (BaseError, OSError)) and not isinstance(error, SourceFailed):
            raise Passing(_short(error)) from error


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
