"""Which platform this is, by a faked environment and root folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.host import PLATFORMS, Platform, recognise, spots_here

NAMES = [platform.name for platform in PLATFORMS]
ROLES = {"kept", "roomy", "scratch", "small"}
RULES = [(platform.name, rule) for platform in PLATFORMS for rule in platform.variables]
PATHS = [(platform.name, path) for platform in PLATFORMS for path in platform.paths]


def environment(rule: str) -> dict[str, str]:
    """The least environment that a rule is told by."""
    pairs = (part.partition("=") for part in rule.split("+"))
    return {name: value or "anything" for name, _, value in pairs}


def by_name(name: str) -> Platform:
    return next(platform for platform in PLATFORMS if platform.name == name)


@pytest.mark.parametrize(("name", "rule"), RULES)
def test_each_platform_is_known_by_each_of_its_variables(tmp_path: Path, name: str, rule: str) -> None:
    assert recognise(environment(rule), root=tmp_path).name == name


@pytest.mark.parametrize(("name", "path"), PATHS)
def test_each_platform_is_known_by_each_of_its_paths(tmp_path: Path, name: str, path: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    assert recognise({}, root=tmp_path).name == name


def test_every_platform_but_the_last_can_be_told_and_names_are_unique() -> None:
    assert all(platform.variables or platform.paths for platform in PLATFORMS[:-1])
    assert len(set(NAMES)) == len(NAMES) and NAMES[-1] == "plain"


def test_without_a_sign_it_is_a_plain_machine(tmp_path: Path) -> None:
    assert recognise({}, root=tmp_path).name == "plain"
    assert recognise({"container": "lxc", "RUNPOD_VOLUME_ID": "from a script"}, root=tmp_path).name == "plain"


@pytest.mark.parametrize(
    ("variables", "paths", "name"),
    [
        ({"SLURM_JOB_ID": "17"}, [".dockerenv"], "slurm"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, [".dockerenv", "kaggle/working"], "kaggle"),
        ({"COLAB_RELEASE_TAG": "release", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}, ["kaggle/working"], "kaggle"),
        ({"RUNPOD_POD_ID": "a"}, [".dockerenv"], "runpod"),
        ({"RUNPOD_POD_ID": "a", "RUNPOD_VOLUME_ID": "b"}, [".dockerenv"], "runpod-network"),
        ({"VAST_CONTAINERLABEL": "C.1"}, [".dockerenv"], "vast"),
        ({"MODAL_TASK_ID": "ta-1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, [], "modal"),
        ({"SAGEMAKER_INTERNAL_IMAGE_URI": "x", "SAGEMAKER_APP_TYPE": "x"}, ["home/studio-lab-user"], "studio-lab"),
        ({"SM_MODEL_DIR": "/opt/ml/model"}, [".dockerenv"], "sagemaker-training"),
        ({"SLURM_JOB_ID": "17"}, ["lambda/nfs"], "slurm"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, [".dockerenv"], "kubernetes"),
        ({"WSL_DISTRO_NAME": "Ubuntu"}, [".dockerenv"], "docker"),
        ({"container": "podman"}, ["run/.containerenv"], "docker"),
    ],
)
def test_of_several_signs_the_most_telling_counts(
    tmp_path: Path, variables: dict[str, str], paths: list[str], name: str
) -> None:
    for path in paths:
        (tmp_path / path).mkdir(parents=True)
    assert recognise(variables, root=tmp_path).name == name


@pytest.mark.parametrize("platform", PLATFORMS, ids=NAMES)
def test_each_row_says_what_it_knows_and_from_where(platform: Platform) -> None:
    facts = [platform.session_seconds, platform.idle_seconds, *(spot.total_bytes for spot in platform.spots)]
    for fact in filter(None, facts):
        assert fact.value > 0 and fact.source and fact.date[:2] == "20"
    assert platform.spots and platform.title
    for spot in platform.spots:
        assert spot.role in ROLES and spot.path[0] in "/~$"
        assert spot.kept is not False or spot.role != "kept", "what is not kept is no kept spot"


@pytest.mark.parametrize("platform", PLATFORMS, ids=NAMES)
def test_spots_are_those_that_are_folders_here(tmp_path: Path, platform: Platform) -> None:
    names = ["SLURM_TMPDIR", "TMPDIR", "SCRATCH", "WORK", "PROJECT"]
    values = {name: f"/of/{name.lower()}" for name in names} | {"HOME": "/home/me"}
    assert spots_here(platform, values, root=tmp_path) == ()
    for spot in platform.spots:
        text = spot.path.replace("~", "/home/me").replace("*", "one")
        text = f"/of/{text[1:].lower()}" if text.startswith("$") else text
        (tmp_path / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
    found = spots_here(platform, values, root=tmp_path)
    assert len(found) == len(platform.spots)
    assert all(spot.path.startswith("/") and not set("~$*") & set(spot.path) for spot in found)
    assert [spot.role for spot in found] == [spot.role for spot in platform.spots]


def test_each_filesystem_of_lambda_is_a_spot(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "lambda/nfs" / name).mkdir(parents=True)
    (tmp_path / "lambda/nfs/file").touch()
    found = spots_here(by_name("lambda"), {"HOME": "/nowhere"}, root=tmp_path)
    assert [spot.path for spot in found] == ["/lambda/nfs/a", "/lambda/nfs/b"]


def test_two_spots_on_one_path_are_one(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    values = {"SLURM_TMPDIR": "/local", "TMPDIR": "/local/", "SCRATCH": "", "WORK": "relative", "HOME": "/none"}
    found = spots_here(by_name("slurm"), values, root=tmp_path)
    assert [(spot.path, spot.role) for spot in found] == [("/local", "scratch")]


@given(st.dictionaries(st.sampled_from([rule for _, rule in RULES]), st.text(), max_size=4))
def test_whatever_is_set_the_first_row_that_is_told_is_taken(given_rules: dict[str, str]) -> None:
    values = {name: value for rule in given_rules for name, value in environment(rule).items()}
    found = recognise(values, root=Path("/no such root"))
    told = [name for name, rule in RULES if environment(rule).items() <= values.items()]
    assert found.name == (min(told, key=NAMES.index) if told else "plain")


@pytest.mark.parametrize("platform", PLATFORMS, ids=NAMES)
def test_the_page_of_platforms_has_each_row(platform: Platform) -> None:
    page = (Path(__file__).parents[2] / "docs" / "platforms.md").read_text()
    section = page.partition(f"### {platform.title} (`{platform.name}`)\n")[2].partition("\n### ")[0]
    assert section, "add a section for it"
    for spot in platform.spots:
        assert f"| `{spot.path}` | {spot.role} |" in section
    assert all(note[1:] in section for note in platform.notes)
