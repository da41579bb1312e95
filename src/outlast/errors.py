"""Every error that Outlast raises, in one tree. Each carries a hint: what to do about it.

OutlastError
├── BadInput            an argument, option or file is not what was expected
├── SealError           a checkpoint's seal is missing, torn, or does not match its files
├── NoWayBack           resume was asked for and no checkpoint here verifies
├── NoRoom              the next save does not fit, and every allowed rung was tried
├── SaveFailed          a save failed for a reason that making room does not cure
├── DoesNotFit          a step needs more memory than there is, even for one sample
├── SourceFailed        a source of data does not answer, or broke off and did not come back
├── SourceChanged       a source of data is not what it was when the fetch of a subset began
└── VaultBusy           another process is changing the same folder of checkpoints, or the same subset
"""

from __future__ import annotations


class OutlastError(Exception):
    """Base of all of Outlast's errors.

    Args:
        message: what was expected and what came.
        hint: what the user can do; printed on a line of its own.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}"


class BadInput(OutlastError, ValueError):
    """An argument, option or file is not what was expected."""


class SealError(OutlastError):
    """A checkpoint's seal is missing, torn, or does not match its files."""


class NoWayBack(OutlastError):
    """Resume was asked for and no checkpoint here verifies."""


class NoRoom(OutlastError, OSError):
    """The next save does not fit, and every allowed rung of the ladder was tried."""


class SaveFailed(OutlastError):
    """A save failed for a reason that making room does not cure."""


class DoesNotFit(OutlastError, MemoryError):
    """A step needs more memory than there is, even for one sample, or for a batch that cannot be split."""


class SourceFailed(OutlastError, OSError):
    """A source of data does not answer, or broke off and did not come back."""


class SourceChanged(OutlastError):
    """A source of data is not what it was when the fetch of a subset began."""


class VaultBusy(OutlastError):
    """Another process is changing the same folder of checkpoints, or the same subset."""
