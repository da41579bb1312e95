"""Which data sets are cut, and what stands for their files and folders."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import BadInput, NoRoom
from outlast.integrations.datasets import files, wanted
from outlast.integrations.datasets.growth import Progress, fits
from outlast.integrations.datasets.wanted import Subset


@pytest.mark.parametrize(
    "name", ["openwebtext", "Skylion007/openwebtext", "stas/openwebtext-10k", "OpenWebText", "owt"]
)
def test_the_scripts_variable_concerns_openwebtext_whoever_owns_it(name: str):
    found = wanted.find(name, {"OWT_SUBSET_NUM": "11000"})
    assert found is not None and (found.rows, found.because) == (11_000, "OWT_SUBSET_NUM")


@pytest.mark.parametrize("name", ["wikitext", "someone/webtext", "openwebtextual/other", "./data/train"])
def test_the_scripts_variable_concerns_nothing_else(name: str):
    assert wanted.find(name, {"OWT_SUBSET_NUM": "11000"}) is None


@pytest.mark.parametrize(
    ("given_name", "path", "is_it"),
    [
        ("openwebtext", "Skylion007/openwebtext", True),
        ("Skylion007/openwebtext", "openwebtext", False),
        ("Skylion007/openwebtext", "hf://datasets/skylion007/openwebtext", True),
        ("glue", "nyu-mll/glue", True),
        ("glue", "nyu-mll/glue2", False),
        ("/data/text", "/data/text/", True),
        ("/data/text", "/other/text", False),
    ],
)
def test_a_name_without_an_owner_is_that_data_set_of_any_owner(given_name: str, path: str, is_it: bool):
    assert Subset(given_name, 5).names(path) is is_it


def test_the_option_stands_above_the_scripts_variable_and_the_inner_command_above_the_outer():
    inner = wanted.joined(
        [Subset("openwebtext", 7)], wanted.joined([Subset("openwebtext", 9), Subset("glue", 3)], None)
    )
    environment = {wanted.VARIABLE: inner, "OWT_SUBSET_NUM": "11000"}
    assert [wanted.find(name, environment).rows for name in ("openwebtext", "nyu-mll/glue")] == [7, 3]


@pytest.mark.parametrize("text", ["openwebtext", "=5", "openwebtext=", "openwebtext=0", "a=-4", "a;b=4", "x=²"])
def test_what_is_no_name_and_number_is_refused(text: str):
    with pytest.raises(BadInput, match="hint: for example --subset openwebtext=11000"):
        Subset.parse(text)


def test_a_number_with_underscores_is_one():
    assert Subset.parse("hf://datasets/a/b=11_000") == Subset("hf://datasets/a/b", 11_000)


HUB = "hf://datasets/o/n@abc/plain_text/"


def test_files_of_one_folder_are_one_pattern():
    names = [f"{HUB}train-{i:05d}-of-00080.parquet" for i in range(80)]
    assert files.source(names) == f"{HUB}train-000*-of-00080.parquet"
    assert files.source(names[:1]) == names[0]
    assert files.source([names[0], "hf://datasets/o/n@abc/other/train-1.parquet"]) is None
    assert files.source(["/a/x[1].parquet"]) is None


@given(st.lists(st.text("ab01-.", min_size=1, max_size=8), min_size=2, max_size=9, unique=True))
def test_the_pattern_matches_all_of_its_files(names: list[str]):
    import fnmatch

    pattern = files.source([f"/d/{name}" for name in names])
    assert all(fnmatch.fnmatchcase(f"/d/{name}", pattern) for name in names)


def test_a_pattern_that_read_other_files_or_another_order_is_seen():
    there = ("/d/train-1.parquet", "/d/train-2.parquet")
    assert files.agrees(there, ["train-1.parquet", "train-2.parquet"])
    assert files.agrees(there, ["train-1.parquet"]), "the first rows are in the first file"
    assert not files.agrees(there, ["train-2.parquet"])
    assert not files.agrees(there, ["train-1.parquet", "train-15.parquet"])


def test_a_folders_name_changes_with_its_content_only():
    one = files.Files((HUB + "a.parquet",))
    names = {
        files.folder_name("train", 5, one, "parquet"),
        files.folder_name("train", 6, one, "parquet"),
        files.folder_name("train", 5, files.Files((HUB + "b.parquet",)), "parquet"),
        files.folder_name("train", 5, files.Files(("/a.parquet",), ("5-1",)), "parquet"),
        files.folder_name("train", 5, files.Files(("/a.parquet",), ("5-2",)), "parquet"),
    }
    assert len(names) == 5 and files.folder_name("train", 5, one, "parquet") in names


def test_no_name_of_a_data_set_leads_out_of_its_folder():
    assert all("/" not in files.plain(name) for name in ("../../etc", "a/b", "/", "hf://datasets/a/b", "..", "a\\b"))
    assert (
        files.plain("..") not in (".", "..", "") and files.plain("Skylion007/openwebtext") == "Skylion007___openwebtext"
    )


def test_a_map_that_fits_goes_on_and_one_that_does_not_is_stopped():
    assert fits(Progress(1_000, 100_000, 0, 1_000), 100_000)
    assert fits(Progress(1_000, 100_000, 0, 1_000), 85_000), "a rough forecast has the benefit of the doubt"
    assert not fits(Progress(1_000, 100_000, 0, 1_000), 75_000)
    assert not fits(Progress(20_000, 100_000, 19_000, 1_000), 75_000)
    assert not fits(Progress(1_000, 100_000, 0, 1_000, processes=2), 100_000)
    assert not fits(Progress(100, 100, 50, 1_000), 999), "the piece itself"
    assert fits(Progress(1, 10**9, 0, 10**9), None), "unknown room stops nothing"


@given(
    st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 64),
    st.integers(0, 10**12),
)  # fmt: skip
def test_a_last_piece_is_written_exactly_when_it_fits(done, more, written, piece, processes, free):
    last = Progress(done, done, written, piece, processes)
    assert fits(last, free) == (piece * processes <= free)
    assert Progress(done, done + more, written, piece, processes).predicted_bytes >= last.predicted_bytes


def test_an_error_comes_out_of_a_pool_as_it_went_in():
    error = pickle.loads(pickle.dumps(NoRoom("no room", hint="make some")))
    assert (type(error), error.message, error.hint) == (NoRoom, "no room", "make some")
