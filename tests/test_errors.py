"""Every error says what came and what to do about it."""

import pytest

from outlast import errors

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OutlastError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_shows_its_message_and_then_its_hint(kind: type[errors.OutlastError]) -> None:
    assert str(kind("it was not whole", hint="take another")) == "it was not whole\n  hint: take another"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_no_error_can_be_made_without_a_hint(kind: type[errors.OutlastError]) -> None:
    with pytest.raises(TypeError):
        kind("it was not whole")  # type: ignore[call-arg]


def test_bad_input_is_a_value_error_for_those_who_know_nothing_of_outlast() -> None:
    assert issubclass(errors.BadInput, ValueError) and issubclass(errors.NoRoom, OSError)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {line.split()[1] for line in (errors.__doc__ or "").splitlines() if line[:1] in "├└" and line}
    assert drawn == {kind.__name__ for kind in ALL} - {"OutlastError"}
