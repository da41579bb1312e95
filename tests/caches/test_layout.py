"""Where each cache should live: decided from what was measured, without looking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.caches import CATALOGUE, Answer, Layout, Setting, Site, by_id, check, decide_layout, mend, places
from outlast.caches.layout import ENOUGH_BYTES, GAIN
from outlast.host import Limit, Mount, Room

GB = 10**9
CWD = Path("/root/project")
HOME = {"HOME": "/root"}


def site(
    path: str,
    free: float | None,
    role: str = "",
    *,
    kept: bool | None = None,
    fstype: str = "ext4",
    device: int | None = None,
    inodes: int | None = None,
    writable: bool = True,
    shared: bool = False,
    total: float = 2000,
) -> Site:
    """A site with so many GB free."""
    mount = Mount(1, (8, 1), "/", path, fstype, "mfs#x" if fstype.startswith("fuse") else "/dev/x")
    limit = Limit("statvfs", None if free is None else int(free * GB), int(total * GB))
    room = Room(Path(path), hash(path) if device is None else device, (limit,), inodes, mount)
    return Site(Path(path), room, role, kept, writable, shared)


def lay_out(
    *sites: Site, environment: Mapping[str, str] = HOME, present: tuple[str, ...] = (), cwd: Path = CWD
) -> Layout:
    """The layout where each cache is on the site that holds its path, else on the first."""

    def holding(path: Path) -> Site:
        around = [one for one in sites if path == one.path or one.path in path.parents]
        return max(around, key=lambda one: len(str(one.path)), default=sites[0])

    found = {name: holding(place.path) for name, place in places(environment, cwd=cwd).items()}
    return decide_layout(sites, found, environment, cwd, present=frozenset(present))


def variables(layout: Layout) -> dict[str, str | None]:
    return {setting.variable: setting.value for setting in layout.settings}


# The profiles of seeds/004, which nobody wrote down here: they follow from the rule.


def test_on_a_runpod_pod_weights_and_data_go_to_the_volume_disk() -> None:
    layout = lay_out(
        site("/root", 15, "small", kept=False, device=1), site("/tmp", 15, "scratch", kept=False, device=1),
        site("/workspace", 480, "kept", kept=True),
    )  # fmt: skip
    found = variables(layout)
    assert found["HF_HUB_CACHE"] == "/workspace/.cache/huggingface/hub"
    assert found["HF_DATASETS_CACHE"] == "/workspace/.cache/huggingface/datasets"
    assert found["TORCH_HOME"] == "/workspace/.cache/torch"
    assert found["GRADIENCE_CACHE_DIR"] == "/workspace/.cache/gradience"
    assert found["WANDB_DIR"] == "/workspace/results" and found["TRACKIO_DIR"] == "/workspace/results/trackio"
    assert "HF_HOME" not in found, "the login would be lost, and a token lie on a volume that others may mount"
    assert not {"TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"} & set(found), "many small files stay on the local disk"
    assert "HF_DATASETS_DOWNLOADED_DATASETS_PATH" not in found, "it follows HF_DATASETS_CACHE"


def test_on_a_runpod_network_volume_that_shows_the_clusters_figures_the_platform_says_which_is_roomy() -> None:
    network = site("/workspace", 885_000, "kept", kept=True, fstype="fuse.mfs", total=2_300_000)
    assert network.free_bytes is None
    layout = lay_out(site("/root", 8, "small", kept=False, device=1), network)
    found = variables(layout)
    assert found["HF_HUB_CACHE"] == "/workspace/.cache/huggingface/hub"
    assert not {"TRITON_CACHE_DIR", "PIP_CACHE_DIR"} & set(found), "never many small files on a network volume"


def test_in_docker_caches_go_to_the_mounted_volume_and_stay_where_there_is_none() -> None:
    layer = site("/root", 9, "small", kept=False, device=1)
    tmp = site("/tmp", 9, "scratch", kept=False, device=1)
    assert lay_out(layer, tmp).settings == ()
    found = variables(lay_out(layer, tmp, site("/data", 700, "roomy")))
    assert found["HF_HUB_CACHE"] == "/data/.cache/huggingface/hub"
    assert found["TRITON_CACHE_DIR"] == "/data/.cache/triton/cache", "a local volume with twice the room"


def test_on_a_local_machine_with_a_roomy_home_nothing_is_moved() -> None:
    home = site("/home/me", 400, "kept", kept=True, device=1)
    layout = lay_out(
        home, site("/tmp", 400, "scratch", device=1), site("/data", 9000, "roomy"), environment={"HOME": "/home/me"}
    )
    assert layout == Layout()


def test_on_kaggle_only_results_move_since_home_is_roomy() -> None:
    layout = lay_out(
        site("/root", 1027, "roomy", kept=False, device=1), site("/tmp", 1027, "roomy", kept=False, device=1),
        site("/kaggle/working", 19.5, "kept", kept=True), cwd=Path("/kaggle/working"),
    )  # fmt: skip
    assert variables(layout) == {"TRACKIO_DIR": "/kaggle/working/results/trackio"}


def test_in_a_slurm_job_weights_go_to_scratch_and_small_files_to_the_node() -> None:
    layout = lay_out(
        site("/root", 3, "small", kept=True, fstype="nfs4"),
        site("/scratch/me", 900_000, "roomy", fstype="lustre", total=10_000_000),
        site("/local/job1", 300, "scratch", kept=False),
    )
    found = variables(layout)
    assert found["TRITON_CACHE_DIR"] == "/local/job1/.cache/triton/cache"
    assert (found["HF_HUB_CACHE"] or "").startswith("/scratch/me/")


# The rule.


def test_a_cache_in_memory_moves_to_a_disk() -> None:
    tmp = site("/tmp", 60, "scratch", fstype="tmpfs")
    found = variables(lay_out(site("/root", 60), tmp))
    assert found == {
        "TORCHINDUCTOR_CACHE_DIR": "/root/.cache/torchinductor",
        "TFHUB_CACHE_DIR": "/root/.cache/tfhub_modules",
    }


def test_small_files_leave_a_volume_where_hardly_any_more_can_be_made() -> None:
    found = variables(lay_out(site("/root", 500, inodes=100), site("/data", 500, "roomy", inodes=10**6)))
    assert "TRITON_CACHE_DIR" in found and "HF_HUB_CACHE" not in found


def test_below_a_folder_that_others_may_write_to_ours_has_our_name() -> None:
    found = variables(lay_out(site("/root", 1), site("/scratch", 500, "roomy", shared=True)))
    assert "/outlast-" in (found["HF_HUB_CACHE"] or "")


def test_a_drive_without_links_takes_no_caches() -> None:
    assert lay_out(site("/root", 10), site("/content/drive/MyDrive", 500, "kept", fstype="fuse.drive")).settings == ()


def test_a_budget_counts_as_the_free_bytes_also_on_the_same_volume() -> None:
    mine = site("/root", 400, device=1)
    held = Room(Path("/root"), 1, (Limit("budget /root", 5 * GB, 10 * GB), *mine.room.limits), None, mine.room.mount)
    found = variables(lay_out(Site(Path("/root"), held), site("/data", 400, "roomy", device=1)))
    assert "HF_HUB_CACHE" in found


def test_what_is_there_already_is_said_to_stay_with_the_command_that_moves_it() -> None:
    layout = lay_out(site("/root", 5), site("/data", 500, "roomy"), present=("hf-hub",))
    (remark,) = layout.remarks
    assert remark.fix == "outlast migrate /root/.cache/huggingface/hub /data/.cache/huggingface/hub --env"


def test_results_that_are_there_already_are_not_made_to_vanish() -> None:
    layout = lay_out(site("/root", 500, kept=False), site("/kept", 500, "kept", kept=True), present=("trackio",))
    assert "TRACKIO_DIR" not in variables(layout)
    assert [(remark.subject, remark.fix) for remark in layout.remarks] == [("trackio", "copy it to /kept")]


def test_what_the_user_set_is_kept_and_said_to_be_tight() -> None:
    environment = {**HOME, "HF_HUB_CACHE": "/root/mine"}
    layout = lay_out(site("/root", 5), site("/data", 500, "roomy"), environment=environment)
    assert "HF_HUB_CACHE" not in variables(layout)
    assert any(r.subject == "HF_HUB_CACHE" and "kept as you set it" in r.what for r in layout.remarks)


FREE = st.one_of(st.none(), st.floats(0, 3000))
SITES = st.builds(
    site,
    st.sampled_from(["/tmp", "/data", "/workspace", "/scratch", "/mnt/x"]),
    FREE,
    st.sampled_from(["", "kept", "roomy", "scratch", "small"]),
    kept=st.sampled_from([None, True, False]),
    fstype=st.sampled_from(["ext4", "tmpfs", "fuse.mfs", "nfs4", "overlay"]),
    device=st.integers(1, 3),
    inodes=st.sampled_from([None, 5, 10**6]),
    writable=st.booleans(),
    shared=st.booleans(),
    total=st.sampled_from([100, 2_300_000]),
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from([v for cache in CATALOGUE for v in cache.variables] + ["XDG_CACHE_HOME"]),
    st.sampled_from(["/data/a", "/root/b", "~/c", "$HOME/d", "rel", "", "$NOBODY/e", "/with space/$x"]),
    max_size=4,
)


@given(st.builds(site, st.just("/root"), FREE, st.just("small"), device=st.integers(1, 3)),
       st.lists(SITES, max_size=4, unique_by=lambda one: one.path), ENVIRONMENTS)  # fmt: skip
def test_whatever_the_machine_settings_are_absolute_gain_room_and_settle(
    home: Site, others: list[Site], values: dict[str, str]
) -> None:
    environment = {**HOME, **values}
    mended = mend(environment, CWD)
    for setting in mended.settings:
        assert setting.value is None or setting.value.startswith("/")
    environment = mended.applied(environment)
    assert mend(environment, CWD).settings == (), "mended once is mended"

    layout = lay_out(home, *others, environment=environment)
    by_path = {one.path: one for one in (home, *others)}
    for setting in layout.settings:
        assert setting.variable not in environment, "what is set is kept"
        assert setting.value is not None
        (row,) = [cache for cache in CATALOGUE if cache.variables[:1] == (setting.variable,)]
        target = next(by_path[path] for path in Path(setting.value).parents if path in by_path)
        assert target.writable and not target.is_memory
        assert row.id in setting.caches, "it moves at least its own"
        if row.role == "small":
            assert target.is_local
    after = layout.applied(environment)
    again = lay_out(home, *others, environment=after)
    assert again.settings == (), "once set, all is settled"


@given(st.lists(SITES, max_size=4, unique_by=lambda one: one.path))
def test_a_roomy_local_home_is_never_left_for_room(others: list[Site]) -> None:
    home = site("/root", max(ENOUGH_BYTES.values()) / GAIN / GB + 0.001, "kept", kept=True, device=9)
    on_home = [one for one in others if one.path != Path("/tmp")]
    assert lay_out(home, *on_home).settings == ()


# What is wrong with values.


def the(layout: Layout) -> Setting:
    (setting,) = layout.settings
    return setting


def test_a_quoted_home_is_mended_to_an_absolute_path_and_the_caches_that_it_split_are_named() -> None:
    setting = the(mend({**HOME, "HF_HOME": "$HOME/x"}, CWD))
    assert (setting.variable, setting.value) == ("HF_HOME", "/root/x")
    assert "hf-datasets" in setting.caches and "hf-hub" not in setting.caches


@pytest.mark.parametrize("variable", ["HF_XET_CACHE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "KAGGLEHUB_CACHE"])
def test_a_quoted_tilde_is_mended_where_its_owner_does_not_expand_it(variable: str) -> None:
    assert the(mend({**HOME, variable: "~/x"}, CWD)).value == "/root/x"


@pytest.mark.parametrize(
    ("variable", "value"), [("HF_HUB_CACHE", "$HOME/x"), ("TORCH_HOME", "~/x"), ("HF_HOME", "~/x")]
)
def test_a_value_that_all_its_readers_expand_alike_is_left_alone(variable: str, value: str) -> None:
    assert mend({**HOME, variable: value}, CWD) == Layout()


def test_a_relative_value_is_mended_for_caches_and_left_for_results() -> None:
    assert the(mend({**HOME, "HF_HUB_CACHE": "hub"}, CWD)).value == "/root/project/hub"
    assert "hf-hub" in the(mend({**HOME, "HF_HOME": "hf"}, CWD)).caches
    assert mend({**HOME, "WANDB_DIR": "logs"}, CWD) == Layout()


def test_an_empty_value_is_unset_where_it_means_the_current_folder() -> None:
    assert the(mend({**HOME, "HF_HUB_CACHE": ""}, CWD)).value is None
    assert mend({**HOME, "CUDA_CACHE_PATH": ""}, CWD) == Layout()


def test_a_name_that_nothing_stands_for_and_a_dead_variable_are_said_with_the_fix() -> None:
    (unknown,) = mend({**HOME, "TORCH_HOME": "$SCRATCH/t"}, CWD).remarks
    assert unknown.fix == "export TORCH_HOME=/an/absolute/path"
    (dead,) = mend({**HOME, "TRANSFORMERS_CACHE": "/old"}, CWD).remarks
    assert "nobody reads it" in dead.what and dead.fix.startswith("unset TRANSFORMERS_CACHE")


def test_a_dead_variable_lives_on_where_an_old_transformers_is_installed(tmp_path: Path) -> None:
    values = {"HOME": str(tmp_path), "TRANSFORMERS_CACHE": "/old"}
    said = {}
    for version in ("4.57.1", "5.23.0"):
        answer = Answer("python", "3.11.7", {"transformers": version})
        (said[version],) = check(values, tmp_path, mend(values, tmp_path), answer).remarks
    assert "4.57.1 still reads it" in said["4.57.1"].what
    assert "nobody reads it" in said["5.23.0"].what


def test_every_role_of_a_row_is_one_that_the_layout_knows() -> None:
    assert {cache.role for cache in CATALOGUE} == {"data", "small", "results", "none"}
    assert by_id("hf-home").role == "none"
