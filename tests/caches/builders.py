"""Small caches, as their owners leave them behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

from outlast.caches import Survey

DAY = 86400.0


class Hub:
    """A hub cache, laid out as huggingface_hub 2.4 does it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def file(self, repo: str, revision: str, name: str, data: bytes, *, etag: str | None = None) -> Path:
        """A file of a revision: a blob, and a link to it; gives back the blob."""
        blob = self.root / repo / "blobs" / (etag or f"etag-{revision}-{name}")
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(blob):
            blob.write_bytes(data)
        link = self.root / repo / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
        return blob

    def ref(self, repo: str, name: str, revision: str) -> None:
        """A branch that names a revision."""
        path = self.root / repo / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(revision)

    def partial(self, repo: str, data: bytes, *, etag: str = "etag-partial", attempt: str = "12345678") -> Path:
        """A download that did not finish."""
        path = self.root / repo / "blobs" / f"{etag}.{attempt}.incomplete"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def lock(self, repo: str, etag: str) -> Path:
        """The lock file of a download."""
        path = self.root / ".locks" / repo / f"{etag}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def share(self, blob: Path, digest: str) -> Path:
        """Move a blob into the shared store, as the hub publishes it; gives back the payload."""
        store = self.root / "blobs"
        payload = store / digest[:2] / digest
        payload.parent.mkdir(parents=True, exist_ok=True)
        (store / ".huggingface-shared-blobs").write_text("1\n")
        if payload.exists():
            blob.unlink()
        else:
            blob.rename(payload)
        payload.chmod(0o444)
        blob.symlink_to(os.path.relpath(payload, blob.parent))
        with payload.with_name(f"{digest}.refs").open("a") as file:
            file.write(f"{blob.relative_to(self.root).as_posix()}\n")
        return payload

    def model(self, name: str = "models--org--model", size: int = 20_000, revision: str = "r1") -> Path:
        """A whole repository with one revision; gives back its folder."""
        self.file(name, revision, "model.safetensors", bytes(size))
        self.file(name, revision, "config.json", b"{}")
        self.ref(name, "main", revision)
        return self.root / name


def later(days: float = 2.0) -> Survey:
    """A look at the machine some days on: what was made just now is old by then."""
    return Survey(now=time.time() + days * DAY)
