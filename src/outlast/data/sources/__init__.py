"""Where data comes from: one file a kind of place, all with the same few methods (`interface.Source`)."""

from __future__ import annotations

from importlib import import_module

from outlast.data.sources.interface import Source, SourceFile
from outlast.errors import BadInput

__all__ = ["Source", "SourceFile", "open_source"]

_HOMES = {
    "": ("outlast.data.sources.local", "LocalSource"),
    "file": ("outlast.data.sources.local", "LocalSource"),
    "http": ("outlast.data.sources.http", "HttpSource"),
    "https": ("outlast.data.sources.http", "HttpSource"),
    "hf": ("outlast.data.sources.hub", "HubSource"),
    **dict.fromkeys(("s3", "gs", "az", "abfs", "abfss"), ("outlast.data.sources.objects", "ObjectSource")),
}


def open_source(text: str) -> Source:
    """A source by its address.

    Raises:
        BadInput: no such kind of address, nothing there, or a package for it that is missing.
    """
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme not in _HOMES or not text or "\0" in text:
        raise BadInput(
            f"expected a source of data, got {text!r}",
            hint="a file, folder or pattern here, https://, s3://, gs://, az://, or hf://datasets/org/name",
        )
    module, name = _HOMES[scheme]
    try:
        made: Source = getattr(import_module(module), name)(text)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"{scheme}:// needs the package {error.name}", hint="pip install '.[data]' in a clone of Outlast brings it"
        ) from None
    return made
