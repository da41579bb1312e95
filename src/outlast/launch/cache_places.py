"""Under `outlast run` caches go to the roomy volume by themselves: those that are empty and that nobody has placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from outlast.caches import Here, Layout, Place, holds_something, look, make_folders, places
from outlast.errors import OutlastError
from outlast.host import Budget, room


def settings_for(here: Layout, found: Mapping[str, Place]) -> Layout:
    """The part of a layout that may be applied unasked.

    What the user has set stays as it is (`outlast env` says what is wrong with it), and what is downloaded already is
    not left behind (`outlast migrate` moves it).
    """
    empty = {name for name, place in found.items() if not holds_something(place.path)}
    kept = [
        setting
        for setting in here.settings
        if setting.value is not None
        and set(setting.caches) <= empty
        and not any(found[name].variable for name in setting.caches if name in found)
    ]
    return replace(here, settings=tuple(kept))


def placed(
    environment: Mapping[str, str], budgets: Sequence[Budget] = (), *, seen: Here | None = None
) -> tuple[dict[str, str], list[str]]:
    """An environment in which empty caches are where there is room for them, and what to tell the user.

    Args:
        environment: the command's.
        budgets: declared limits.
        seen: the machine; None looks.
    """
    try:
        here = seen or look(environment, measure=lambda path: room(path, budgets or None))
        layout = settings_for(here.layout, places(environment))
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        # A folder that is gone, a user without a home: the command must start all the same.
        return dict(environment), [f"caches stay where they are: {error}"]
    if not layout.settings:
        return dict(environment), []
    try:
        make_folders(layout)
    except OutlastError as error:
        return dict(environment), [f"caches stay where they are: {error.message}"]
    names = ", ".join(f"{setting.variable}={setting.value}" for setting in layout.settings)
    return layout.applied(environment), [f"caches go where there is room (outlast env says why): {names}"]
