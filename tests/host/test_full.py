"""How close a place is to its limits, and what is said when it is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.host import Budget, Limit, Mount, Pressure, Quota, Room, explain_full, pressure, room

GB = 10**9
MFS = Mount(9, (0, 99), "/", "/workspace", "fuse", "mfs#euro.runpod.net:9421")
EXT4 = Mount(1, (8, 0), "/", "/", "ext4", "/dev/vda")
SHM = Mount(3, (0, 27), "/", "/dev/shm", "tmpfs", "shm")


def cluster(path: str) -> os.statvfs_result:
    """RunPod's network volume as statvfs shows it: 2.3 PB, 885 TB free (research/storage.md, finding 2)."""
    block = 65536
    total, free = 2_300 * 10**12 // block, 885 * 10**12 // block
    return os.statvfs_result((block, block, total, free, free, 10**9, 10**8, 10**8, 0, 255))


def place(*limits: Limit, mount: Mount | None = EXT4, inodes: int | None = 5) -> Room:
    return Room(Path("/workspace/run"), 1, limits, inodes, mount)


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (0, Pressure.OK),
        (90 * GB - 1, Pressure.OK),
        (90 * GB, Pressure.WARN),
        (100 * GB - 1, Pressure.WARN),
        (100 * GB, Pressure.FULL),
        (120 * GB, Pressure.FULL),
    ],
)
def test_a_budget_of_100_gb_on_2_pb_warns_at_90_and_refuses_at_100(
    tmp_path: Path, used: int, expected: Pressure
) -> None:
    found = room(
        tmp_path,
        [Budget(tmp_path.resolve(), 100 * GB)],
        statvfs=cluster,
        used=lambda path: used,
        mounted=lambda path: MFS,
    )
    assert pressure(found) == expected
    assert (found.free_bytes, found.source) == (100 * GB - used, f"budget {tmp_path.resolve()}")
    assert not found.is_clusters and found.doubt is None
    assert found.lacks(1) == (expected == Pressure.FULL)


def test_without_a_budget_the_number_is_the_clusters_and_one_is_asked_for(tmp_path: Path) -> None:
    found = room(tmp_path, [], statvfs=cluster, mounted=lambda path: MFS)
    assert found.is_clusters and pressure(found) is None
    assert found.doubt == (
        "885.0 TB free on /workspace (fuse, mfs#euro.runpod.net:9421) is the cluster's, not yours: "
        "say how much is yours with --budget /workspace=100GB"
    )


@pytest.mark.parametrize(("mount", "total"), [(EXT4, 2_000_000 * GB), (MFS, 20_000 * GB), (None, 2_000_000 * GB)])
def test_a_large_disk_of_ones_own_or_a_small_share_is_no_clusters(mount: Mount | None, total: int) -> None:
    found = place(Limit("statvfs", GB, total), mount=mount)
    assert not found.is_clusters and found.doubt is None


@given(st.lists(st.tuples(st.integers(-50, 1000), st.one_of(st.none(), st.integers(1, 1000))), max_size=5))
def test_pressure_is_that_of_the_worst_limit(figures: list[tuple[int, int | None]]) -> None:
    found = pressure(place(*(Limit(f"budget /{n}", free, total) for n, (free, total) in enumerate(figures))))
    if not figures:
        assert found is None
    elif any(free <= 0 for free, _ in figures):
        assert found == Pressure.FULL
    else:
        close = any(total is not None and 10 * (total - free) >= 9 * total for free, total in figures)
        assert found == (Pressure.WARN if close else Pressure.OK)


def test_what_is_unknown_presses_nobody() -> None:
    assert pressure(place(Limit("statvfs", None, None))) is None
    assert pressure(place()) is None


@pytest.mark.parametrize(
    ("number", "found", "expected"),
    [
        (errno.ENOSPC, place(Limit("statvfs", 0, 45 * GB)), "the volume is exhausted, 0 B of 45.0 GB left"),
        (errno.ENOSPC, place(Limit("budget /workspace", -GB, 100 * GB), Limit("statvfs", 9 * GB, 99 * GB), mount=MFS),
         "the budget /workspace is exhausted, 1.0 GB over its 100.0 GB"),
        (errno.EDQUOT, place(Limit("quota of user 1000", 4096, 10 * GB), Limit("statvfs", 9 * GB, 99 * GB)),
         "the quota of user 1000 is exhausted, 4.1 kB of 10.0 GB left"),
        (errno.EDQUOT, place(Limit("statvfs", 885_000 * GB, 2_300_000 * GB), mount=MFS),
         "a quota that the server keeps is exhausted (885.0 TB of 2300.0 TB left, but that is not yours); "
         "say how much is yours with --budget /workspace=100GB"),
        (errno.EDQUOT, place(Limit("statvfs", 0, 5 * GB)), "a project quota is exhausted, 0 B of 5.0 GB left"),
        (errno.EDQUOT, place(Limit("statvfs", 5 * GB, 9 * GB)),
         "a quota that this machine does not show is exhausted (5.0 GB of 9.0 GB left on the volume); "
         "say how much is yours with --budget /=100GB"),
        (errno.ENOSPC, place(Limit("inodes", 0, 45 * GB), Limit("statvfs", 9 * GB, 45 * GB), inodes=0),
         "all inodes of the volume are taken, so no file can be made though bytes are left: delete small files"),
        (errno.EDQUOT, place(Limit("files in the quota of user 5", 0, None), Limit("statvfs", 9 * GB, 45 * GB)),
         "all files in the quota of user 5 are taken, so no file can be made though bytes are left: "
         "delete small files"),
        (errno.ENOSPC, place(Limit("memory limit of the group", 0, GB), Limit("statvfs", GB, 2 * GB), mount=SHM),
         "the memory limit of the group is exhausted, 0 B of 1.0 GB left"),
        (None, place(Limit("statvfs", None, None)), "how much is free there cannot be read"),
        (errno.ENOSPC, place(Limit("statvfs", 3 * GB, 45 * GB)),
         "3.0 GB of 45.0 GB left now under the volume: less was left a moment ago, the write was larger than that, "
         "or a limit holds that this machine does not show"),
    ],
)  # fmt: skip
def test_the_message_names_the_path_the_mount_and_the_limit(number: int | None, found: Room, expected: str) -> None:
    assert explain_full("/a/triton/cache", number, found) == f"no room for /a/triton/cache on {found.mount}: {expected}"


def test_where_the_mount_is_unknown_the_path_is_named() -> None:
    text = explain_full(Path("/x"), errno.EDQUOT, place(Limit("statvfs", 5 * GB, 9 * GB), mount=None))
    assert text.startswith("no room for /x: a quota that this machine does not show") and "/workspace/run=" in text


quotas_held = st.builds(
    Quota,
    st.sampled_from(["user", "group"]),
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(0, 1 << 40)),
    st.integers(0, 1 << 40),
    st.one_of(st.none(), st.integers(0, 100)),
    st.integers(0, 100),
)


@given(
    held=st.lists(quotas_held, max_size=3),
    budget=st.one_of(st.none(), st.tuples(st.integers(1, 1 << 40), st.integers(0, 1 << 40))),
    memory=st.one_of(st.none(), st.integers(0, 1 << 40)),
    free=st.integers(0, 1 << 28),
    files=st.one_of(st.none(), st.integers(0, 3)),
    mount=st.sampled_from([EXT4, MFS, SHM, None]),
    number=st.sampled_from([errno.ENOSPC, errno.EDQUOT, None]),
)
def test_room_is_the_least_of_all_limits_in_their_order(
    held: list[Quota],
    budget: tuple[int, int] | None,
    memory: int | None,
    free: int,
    files: int | None,
    mount: Mount | None,
    number: int | None,
) -> None:
    figures = os.statvfs_result((4096, 4096, 1 << 28, free, free, 0 if files is None else 9, 3, files or 0, 0, 255))
    found = room(
        "/",
        [Budget(Path("/"), budget[0])] if budget else [],
        statvfs=lambda path: figures,
        used=lambda path: budget[1] if budget else 0,
        mounted=lambda path: mount,
        held=lambda path, mount: held,
        memory=lambda enough: ("memory of the machine", memory, 1 << 41) if memory is not None else None,
    )
    expected = [free * 4096]
    expected += [0] * (files == 0)
    expected += [budget[0] - budget[1]] if budget else []
    expected += [memory] if memory is not None and mount is SHM else []
    expected += [
        0 if q.free_files == 0 else q.free_bytes for q in held if q.free_files == 0 or q.free_bytes is not None
    ]  # type: ignore[misc]
    assert [limit.free_bytes for limit in found.limits] == sorted(expected)
    assert found.free_bytes == min(expected)
    counts = [q.free_files for q in held if q.free_files is not None] + ([] if files is None else [files])
    assert found.free_inodes == min(counts, default=None)
    assert explain_full("/x", number, found).startswith("no room for /x")
    assert (pressure(found) == Pressure.FULL) == (min(expected) <= 0)
