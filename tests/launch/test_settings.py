"""What a user sets once, in a file."""

from pathlib import Path

import pytest

from outlast.errors import BadInput
from outlast.launch import settings
from outlast.launch.order import Order


def test_the_first_file_that_is_there_counts(tmp_path: Path):
    (tmp_path / "b").mkdir()
    assert settings.reclaim([tmp_path, tmp_path / "b"]) == ""
    (tmp_path / "b" / "outlast.toml").write_text('[reclaim]\nallow = ["partial", "pip"]\n')
    assert settings.reclaim([tmp_path, tmp_path / "b"]) == "partial,pip"
    (tmp_path / "outlast.toml").write_text("[reclaim]\nallow = []\n")
    assert settings.reclaim([tmp_path, tmp_path / "b"]) == "nothing"


@pytest.mark.parametrize(
    "text", ["[reclaim", "[reclaim]\nalow = []", "[recall]\n", "[reclaim]\nallow = 'pip'", "reclaim = 3", "\x00"]
)
def test_a_file_that_nobody_would_read_as_it_was_meant_is_an_error(tmp_path: Path, text: str):
    (tmp_path / "outlast.toml").write_text(text)
    with pytest.raises(BadInput, match="for example"):
        settings.reclaim([tmp_path])


def test_a_word_that_is_no_cache_is_an_error_before_anything_starts(tmp_path: Path):
    with pytest.raises(BadInput, match="cannot reclaim 'everything'"):
        Order(("true",), tmp_path, reclaim="pip,everything")
