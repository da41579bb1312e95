"""Digests: of a file, and of a file while it is still being written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.checkpoints import digest
from outlast.errors import SealError


@given(data=st.binary(max_size=5000))
def test_a_files_digest_is_that_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("digest") / "file"
    path.write_bytes(data)
    assert digest.of_file(path) == digest.of_bytes(data)
    assert digest.of_file(path, "blake2b") == f"blake2b:{hashlib.blake2b(data, digest_size=32).hexdigest()}"


def test_a_file_larger_than_the_buffer_is_read_to_its_end(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 33  # past the size from which threads help
    (tmp_path / "file").write_bytes(data)
    assert digest.of_file(tmp_path / "file") == digest.of_bytes(data)


@pytest.mark.parametrize("algorithm", ["blake3", "blake2b"])
def test_a_file_is_compared_by_the_algorithm_that_its_seal_names(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    expected = digest.of_file(tmp_path / "file", algorithm)
    assert digest.matches(tmp_path / "file", expected)
    (tmp_path / "file").write_bytes(b"Bytes")
    assert not digest.matches(tmp_path / "file", expected)


def test_an_algorithm_that_is_not_here_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SealError, match="sha9") as caught:
        digest.matches(tmp_path / "file", "sha9:00")
    assert "pip install blake3" in caught.value.hint


def test_without_blake3_the_standard_library_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_blake3", None)
    (tmp_path / "file").write_bytes(b"bytes")
    assert digest.of_file(tmp_path / "file") == digest.of_bytes(b"bytes")
    assert digest.of_bytes(b"bytes").startswith("blake2b:")
    with pytest.raises(SealError, match="blake3"):
        digest.of_file(tmp_path / "file", "blake3")
