"""Text tables."""

from outlast.cli._table import table


def test_words_are_set_to_the_left_and_numbers_to_the_right() -> None:
    shown = table(["name", "step"], [["checkpoint-9", "9"], ["checkpoint-10", "10"]])
    assert shown.splitlines() == ["name           step", "checkpoint-9      9", "checkpoint-10    10"]


def test_a_column_with_one_word_in_it_is_no_column_of_numbers() -> None:
    assert table(["a"], [["5"], ["none"]]).splitlines() == ["a", "5", "none"]


def test_a_table_without_rows_is_its_head() -> None:
    assert table(["name", "step"], []) == "name  step"


def test_no_line_ends_in_blanks() -> None:
    shown = table(["name", "notes"], [["checkpoint-10", ""], ["a", "pinned"]])
    assert all(line == line.rstrip() for line in shown.splitlines())
