"""The seal: what is in a checkpoint, and the proof that it is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import MODEL, MOMENTS, SIDECAR, flip_bit, make_vault, put_checkpoint

from outlast.checkpoints import Check, Entry, Seal, digest
from outlast.checkpoints import seal as seals
from outlast.errors import SealError

PART = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda part: part not in (".", "..")
)
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)
ENTRY = st.builds(Entry, st.integers(0, 2**60), st.text("0123456789abcdef", min_size=4).map("blake3:{}".format))


@st.composite
def sealed(draw: st.DrawFn) -> Seal:
    files = draw(st.dictionaries(NAME, ENTRY, min_size=1, max_size=5))
    kinds = draw(st.lists(st.sampled_from(seals.KINDS), min_size=1, unique=True))
    some = st.lists(st.sampled_from(sorted(files)), unique=True).map(tuple)
    return Seal(
        step=draw(st.integers(0, 2**53)),
        layout=draw(st.text()),
        files=files,
        kinds={kind: draw(some) for kind in seals.KINDS if kind in kinds},
        metrics=draw(st.dictionaries(st.text(), st.floats(allow_nan=False))),
        made=draw(st.sampled_from(["saved", "adopted"])),
        lineage=draw(st.text()),
        created=draw(st.floats(1.0, 1e12)),
        notes=draw(st.dictionaries(st.text(), st.text() | st.integers() | st.none())),
    )


def altered(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A seal that was changed by someone who knows how its own digest is made."""
    record = json.loads(path.read_bytes())
    del record["check"]
    change(record)
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps({**record, "check": digest.of_bytes(text, "blake2b")}))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return put_checkpoint(make_vault(tmp_path), 10)


# Reading and writing


@given(seal=sealed())
def test_a_seal_reads_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, seal: Seal) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    seals.write(folder, seal)
    assert seals.read(folder) == seal


@given(data=st.data(), seal=sealed())
def test_no_changed_character_of_a_seal_changes_what_it_says(
    tmp_path_factory: pytest.TempPathFactory, seal: Seal, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    seals.write(folder, seal)
    text = (folder / seals.NAME).read_text()
    place = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.characters(min_codepoint=32, max_codepoint=126))
    (folder / seals.NAME).write_text(text[:place] + put + text[place + 1 :])
    try:
        assert seals.read(folder) == seal
    except SealError as error:
        assert "not a whole seal" in error.message


@given(data=st.data())
def test_a_torn_seal_is_refused_wherever_it_is_torn(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    seals.write(folder, Seal(3, "outlast", {"a": Entry(1, "blake3:00")}, {"full": ("a",)}, created=1.0))
    whole = (folder / seals.NAME).read_bytes()
    (folder / seals.NAME).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    with pytest.raises(SealError, match="not a whole seal"):
        seals.read(folder)


@given(junk=st.binary(max_size=200) | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_whatever_stands_in_a_seals_place_is_refused_as_a_seal_error(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes | str
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / seals.NAME).write_bytes(junk if isinstance(junk, bytes) else junk.encode())
    with pytest.raises(SealError):
        seals.read(folder)


def test_a_folder_without_a_seal_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(SealError, match="has no seal") as caught:
        seals.read(tmp_path)
    assert "adopts it" in caught.value.hint


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/passwd", "..", "a\0b", ""])
def test_a_name_that_leads_out_of_the_checkpoint_is_refused(checkpoint: Path, name: str) -> None:
    altered(checkpoint / seals.NAME, lambda record: record["files"].update({name: {"bytes": 1, "digest": "blake3:0"}}))
    with pytest.raises(SealError, match="leads out of the checkpoint"):
        seals.read(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(format=2),
        lambda record: record.update(format="1"),
        lambda record: record.pop("format"),
        lambda record: record.pop("lineage"),
        lambda record: record.update(kinds={}),
        lambda record: record.update(kinds={"enormous": []}),
        lambda record: record.update(kinds={"full": ["not a file"]}),
        lambda record: record.update(files=[]),
        lambda record: record.update(step="many"),
        lambda record: record.update(step=float("inf")),
        lambda record: record.update(metrics={"loss": 10**400}),
        lambda record: record["files"][MODEL].update(bytes=None),
    ],
)
def test_a_seal_that_cannot_be_is_refused_though_its_own_digest_fits(
    checkpoint: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    altered(checkpoint / seals.NAME, change)
    with pytest.raises(SealError, match="not a whole seal"):
        seals.read(checkpoint)


def test_a_seal_of_a_newer_format_is_refused_and_names_it(checkpoint: Path) -> None:
    altered(checkpoint / seals.NAME, lambda record: record.update(format=2))
    with pytest.raises(SealError, match="format 2, this Outlast reads 1"):
        seals.read(checkpoint)


def test_no_seal_is_left_when_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        seals.write(tmp_path / "gone", Seal(1, "outlast", {}, {"full": ()}))
    assert list(tmp_path.iterdir()) == []


# Measuring


def test_every_file_is_measured_but_the_seal_itself(checkpoint: Path) -> None:
    (checkpoint / "deep").mkdir()
    (checkpoint / "deep" / "file").write_bytes(b"deep")
    found = seals.measure(checkpoint)
    assert list(found) == ["deep/file", MODEL, MOMENTS, SIDECAR]
    assert found["deep/file"] == Entry(4, digest.of_bytes(b"deep"))


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "dangling link", "pipe"])
def test_what_is_no_regular_file_is_not_sealed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    odd = tmp_path / "checkpoint" / "odd"
    odd.parent.mkdir()
    match kind:
        case "link to a file":
            odd.symlink_to(tmp_path / "outside" / "file")
        case "link to a folder":
            odd.symlink_to(tmp_path / "outside")
        case "dangling link":
            odd.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(odd)
    with pytest.raises(SealError, match="odd is not a regular file"):
        seals.measure(tmp_path / "checkpoint")


def test_a_known_entry_is_not_read_again(checkpoint: Path) -> None:
    known = {MODEL: Entry(7, "blake3:known")}
    assert seals.measure(checkpoint, known)[MODEL] == known[MODEL]


# Checking


def check(checkpoint: Path) -> Check:
    return seals.check(checkpoint, seals.read(checkpoint))


def test_a_checkpoint_that_nobody_touched_is_whole_and_full(checkpoint: Path) -> None:
    assert check(checkpoint) == Check("full", ())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda path: flip_bit(path, 100), "does not have the content that was sealed"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, sealed with"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes, sealed with"),
        (Path.unlink, "is missing"),
    ],
    ids=["flipped bit", "cut", "grown", "gone"],
)
def test_damage_to_what_every_kind_needs_leaves_nothing_whole(
    checkpoint: Path, change: Callable[[Path], object], problem: str
) -> None:
    change(checkpoint / MODEL)
    found = check(checkpoint)
    assert found.kind is None and not found.is_whole
    assert len(found.problems) == 1 and found.problems[0].startswith(MODEL) and problem in found.problems[0]


def test_without_the_moments_a_full_checkpoint_is_a_whole_light_one(checkpoint: Path) -> None:
    (checkpoint / MOMENTS).unlink()
    assert check(checkpoint) == Check("light", ())


def test_damaged_moments_are_a_problem_though_the_light_part_is_whole(checkpoint: Path) -> None:
    flip_bit(checkpoint / MOMENTS)
    found = check(checkpoint)
    assert found.kind == "light" and not found.is_whole and MOMENTS in found.problems[0]


def test_a_link_in_place_of_a_file_is_no_file(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / MODEL).rename(tmp_path / "elsewhere")
    (checkpoint / MODEL).symlink_to(tmp_path / "elsewhere")
    assert check(checkpoint) == Check(None, (f"{MODEL} is missing",))
    assert seals.kind_by_presence(checkpoint, seals.read(checkpoint)) is None


def test_a_file_that_was_added_later_does_no_harm(checkpoint: Path) -> None:
    (checkpoint / "notes.txt").write_text("mine")
    assert check(checkpoint).is_whole


def test_a_digest_that_this_interpreter_does_not_have_is_an_error_and_no_verdict(checkpoint: Path) -> None:
    altered(checkpoint / seals.NAME, lambda record: record["files"][MODEL].update(digest="sha9:00"))
    with pytest.raises(SealError, match="sha9"):
        check(checkpoint)


@pytest.mark.parametrize(
    ("gone", "kind"), [((), "full"), ((MOMENTS,), "light"), ((SIDECAR,), None), ((MODEL, MOMENTS), None)]
)
def test_the_kind_follows_from_which_files_are_there(checkpoint: Path, gone: tuple[str, ...], kind: str | None) -> None:
    for name in gone:
        (checkpoint / name).unlink()
    assert seals.kind_by_presence(checkpoint, seals.read(checkpoint)) == kind


def test_a_file_of_the_wrong_length_does_not_count_as_there(checkpoint: Path) -> None:
    with (checkpoint / MOMENTS).open("ab") as file:
        file.write(b"x")
    assert seals.kind_by_presence(checkpoint, seals.read(checkpoint)) == "light"


# A checkpoint that is one file


def test_a_file_has_its_seal_beside_it_and_is_checked_by_it(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    path = tmp_path / "epoch=1.ckpt"
    path.write_bytes(b"lightning")
    seals.write(path, Seal(5, "lightning", seals.measure(path), {"full": (path.name,)}))
    assert seals.path_of(path) == vault.own / "seals" / "epoch=1.ckpt.json"
    assert check(path) == Check("full", ())
    flip_bit(path)
    assert check(path).kind is None
    path.unlink()
    assert check(path) == Check(None, ("epoch=1.ckpt is missing",))
