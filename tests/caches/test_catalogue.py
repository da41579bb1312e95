"""The table of caches, and that the libraries themselves would put their caches where it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.caches import CATALOGUE, Cost, Sweep, by_id, places
from outlast.caches.entries import SHAPES

LIBRARIES = r"""
import importlib, json, os, sys, tempfile, warnings
warnings.simplefilter("ignore")
import torch, torch.hub, torch._appdirs
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch.utils import cpp_extension
from huggingface_hub import constants
from datasets import config
import accelerate.commands.config.config_args as accelerate
import transformers.utils.hub as transformers
keep = {k: os.environ[k] for k in ("PATH", "HOME")}
for line in sys.stdin:
    os.environ.clear()
    os.environ.update({**keep, **json.loads(line)})
    tempfile.tempdir = None
    for module in (constants, config):
        importlib.reload(module)
    hf_home = os.path.expanduser(
        os.environ.get("HF_HOME", os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")))
    found = {
        "hf-home": constants.HF_HOME, "hf-token": constants.HF_TOKEN_PATH, "hf-hub": constants.HF_HUB_CACHE,
        "hf-stored-tokens": constants.HF_STORED_TOKENS_PATH, "hf-xet": constants.HF_XET_CACHE,
        "hf-assets": constants.HF_ASSETS_CACHE, "hf-datasets": os.path.expanduser(config.HF_DATASETS_CACHE),
        "hf-datasets-downloads": os.path.expanduser(config.DOWNLOADED_DATASETS_PATH),
        "hf-datasets-extracted": os.path.expanduser(config.EXTRACTED_DATASETS_PATH),
        "hf-modules": os.environ.get("HF_MODULES_CACHE", os.path.join(constants.HF_HOME, "modules")),
        "hf-accelerate": os.path.join(hf_home, "accelerate"),
        "torch": torch.hub._get_torch_home(),
        "inductor": os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()),
        "torch-extensions": os.environ.get("TORCH_EXTENSIONS_DIR", cpp_extension.get_default_build_root()),
    }
    print(json.dumps({k: os.path.abspath(v) for k, v in found.items()}), flush=True)
"""


class Libraries:
    """One child process with the real libraries; each question makes them read the environment anew."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.cwd = folder / "work"
        for path in (self.home, self.cwd, folder / "tmp"):
            path.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        self.child = subprocess.Popen(
            [sys.executable, "-c", LIBRARIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.cwd,
            env=environment,
        )  # fmt: skip

    def say(self, values: dict[str, str]) -> dict[str, Any]:
        assert self.child.stdin and self.child.stdout
        self.child.stdin.write(json.dumps(values) + "\n")
        self.child.stdin.flush()
        return dict(json.loads(self.child.stdout.readline()))

    def ours(self, values: dict[str, str]) -> dict[str, str]:
        found = places({"HOME": str(self.home), **values}, cwd=self.cwd)
        return {name: str(place.path) for name, place in found.items()}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libraries]:
    made = Libraries(tmp_path_factory.mktemp("libraries"))
    yield made
    assert made.child.stdin and made.child.stdout
    made.child.stdin.close()
    made.child.wait(timeout=30)
    made.child.stdout.close()


VARIABLES = (
    "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_XET_CACHE", "HF_ASSETS_CACHE", "HF_DATASETS_CACHE",
    "HF_DATASETS_DOWNLOADED_DATASETS_PATH", "HF_DATASETS_EXTRACTED_DATASETS_PATH", "HF_MODULES_CACHE", "HF_TOKEN_PATH",
    "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME", "TMPDIR", "USER",
)  # fmt: skip
VALUES = st.sampled_from(
    ["/abs/x", "/abs/with space/x", "~/x", "$HOME/x", "${HOME}/x", "$NOBODY/x", "rel/x", "../x", "~", "a$b"]
)


def agree(libraries: Libraries, values: dict[str, str]) -> None:
    theirs, ours = libraries.say(values), libraries.ours(values)
    assert {name: ours[name] for name in theirs} == theirs


def test_by_default_the_libraries_look_where_the_catalogue_says(libraries: Libraries) -> None:
    agree(libraries, {})


@pytest.mark.parametrize(
    "variable",
    ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "HF_DATASETS_CACHE", "TORCH_HOME", "HF_XET_CACHE",
     "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR"],
)  # fmt: skip
def test_an_empty_value_is_a_place_for_these_libraries(libraries: Libraries, variable: str) -> None:
    agree(libraries, {variable: ""})


@settings(max_examples=120)
@given(st.dictionaries(st.sampled_from(VARIABLES), VALUES, max_size=5))
def test_under_any_setting_the_libraries_look_where_the_catalogue_says(
    libraries: Libraries, values: dict[str, str]
) -> None:
    agree(libraries, values)


def test_a_temporary_folder_that_is_not_there_is_passed_over_as_python_does(libraries: Libraries) -> None:
    agree(libraries, {"TMPDIR": "/nowhere/at/all"})
    agree(libraries, {"TMPDIR": str(libraries.home)})


def test_a_quoted_home_makes_two_caches_of_one_and_the_place_says_so(libraries: Libraries) -> None:
    values = {"HF_HOME": "$HOME/x"}
    theirs = libraries.say(values)
    assert theirs["hf-hub"] == f"{libraries.home}/x/hub"
    assert theirs["hf-datasets"] == f"{libraries.cwd}/$HOME/x/datasets", "the trap: a folder named $HOME"
    found = places({"HOME": str(libraries.home), **values}, cwd=libraries.cwd)
    assert not found["hf-hub"].literal and found["hf-datasets"].literal


def test_pip_looks_where_the_catalogue_says(tmp_path: Path) -> None:
    for values in ({}, {"XDG_CACHE_HOME": str(tmp_path / "xdg")}, {"PIP_CACHE_DIR": "~/p"}):
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **values}
        done = subprocess.run(
            [sys.executable, "-m", "pip", "cache", "dir"], env=environment, capture_output=True, text=True
        )
        assert done.stdout.strip() == str(places(environment, cwd=tmp_path)["pip"].path)


def test_every_row_has_a_name_of_its_own_and_its_parents_above_it() -> None:
    seen: set[str] = set()
    for cache in CATALOGUE:
        assert cache.id not in seen
        seen.add(cache.id)
        filled = places({"HOME": "/h"}, cwd=Path("/w")).get(cache.id)
        assert (filled is None) == (cache.default is None)
        assert filled is None or "{" not in str(filled.path)


def test_what_cannot_be_made_again_is_never_swept() -> None:
    assert all(cache.sweep is Sweep.NEVER for cache in CATALOGUE if cache.cost is Cost.NEVER)
    for name in ("hf-home", "hf-token", "hf-stored-tokens", "hf-accelerate", "trackio", "wandb", "ollama", "mlflow",
                 "tensorboard", "lightning-logs", "wandb-config", "wandb-artifacts"):  # fmt: skip
        assert by_id(name).cost is Cost.NEVER


def test_by_default_no_swept_cache_has_an_irreplaceable_thing_in_it() -> None:
    found = places({"HOME": "/h"}, cwd=Path("/w")).values()
    swept = [place.path for place in found if place.cache.sweep is not Sweep.NEVER]
    for place in found:
        if place.cache.cost is Cost.NEVER:
            assert not {place.path, *place.path.parents} & set(swept), place.cache.id


def test_every_cache_that_is_swept_by_entries_has_a_shape_and_every_shape_a_cache() -> None:
    by_entries = {cache.id for cache in CATALOGUE if cache.sweep in (Sweep.ENTRIES, Sweep.DATASETS)}
    assert set(SHAPES) <= {cache.id for cache in CATALOGUE}
    assert by_entries - set(SHAPES) <= {"hf-datasets-extracted"}, "archives in it are shapes of the folder above"


def test_variables_that_nobody_reads_place_nothing_until_they_are_set() -> None:
    dead = {cache.variables[0] for cache in CATALOGUE if cache.ignored}
    assert dead == {"TRANSFORMERS_CACHE", "PYTORCH_TRANSFORMERS_CACHE", "PYTORCH_PRETRAINED_BERT_CACHE"}
    assert "transformers-dead" not in places({"HOME": "/h"})
    assert places({"HOME": "/h", "TRANSFORMERS_CACHE": "/old"})["transformers-dead"].path == Path("/old")


def test_a_variable_that_moves_a_parent_is_named_with_the_place() -> None:
    place = places({"HOME": "/h", "TRITON_HOME": "/fast"})["triton"]
    assert (place.path, place.variable) == (Path("/fast/.triton/cache"), "TRITON_HOME")
    assert places({"HOME": "/h", "WANDB_DIR": "~/w"})["wandb"].path == Path("/h/w/wandb")


def test_of_a_search_path_the_first_folder_counts() -> None:
    assert places({"HOME": "/h", "NLTK_DATA": "~/a:/b"})["nltk"].path == Path("/h/a")


def test_the_documentation_lists_every_row_with_its_variables() -> None:
    text = (Path(__file__).parents[2] / "docs/caches.md").read_text()
    for cache in CATALOGUE:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {cache.id} |")]
        assert all(f"`{variable}`" in line for variable in cache.variables)
        assert ("**cannot be**" in line) == (cache.cost is Cost.NEVER)
