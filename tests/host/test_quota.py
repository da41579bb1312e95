"""What quotas leave to a user: the kernel's answers, recorded. Real ones are in tests/torture/test_volumes_quota.py."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.host import Mount, Quota, quotas
from outlast.host.quota import decode

EXT4 = Mount(1, (8, 0), "/", "/", "ext4", "/dev/vda")
KIB = 1024
RECORDED = bytes.fromhex(
    # setquota -u 1000 8192 10240 100 120 and a file of 2 MiB: ext4, Linux 6.1
    "0028000000000000" "0020000000000000" "0000200000000000" "7800000000000000" "6400000000000000"
    "0100000000000000" "0000000000000000" "0000000000000000" "3f000000" "00000000"
)  # fmt: skip


def answer(
    *, hard: int = 0, soft: int = 0, used: int = 0, files: tuple[int, int, int] = (0, 0, 0), until: int = 0
) -> bytes:
    return struct.pack("=QQQQQQQQI4x", hard, soft, used, *files, until, 0, 0x3F)


def test_a_recorded_answer_is_read() -> None:
    found = decode(0, 1000, RECORDED, 0)
    assert found == Quota("user", 1000, 10240 * KIB, 2 << 20, 120, 1)
    assert (found.free_bytes, found.free_files, found.source) == (8 << 20, 119, "quota of user 1000")


@given(hard=st.integers(0, 1 << 40), soft=st.integers(0, 1 << 40), used=st.integers(0, 1 << 50))
def test_limits_are_in_kibibytes_and_usage_in_bytes(hard: int, soft: int, used: int) -> None:
    found = decode(0, 5, answer(hard=hard, soft=soft, used=used), 0)
    if not hard and not soft:
        assert found is None
    else:
        assert found is not None and found.free_bytes == (hard or soft) * KIB - used


def test_a_soft_limit_counts_once_its_grace_is_over() -> None:
    told = answer(hard=200, soft=100, used=150 * KIB, until=1000)
    during, after = decode(0, 5, told, 999), decode(0, 5, told, 1000)
    assert during is not None and during.free_bytes == 50 * KIB
    assert after is not None and after.free_bytes == -50 * KIB


def test_a_quota_of_files_alone_limits_no_bytes() -> None:
    found = decode(1, 7, answer(used=99, files=(10, 0, 12)), 0)
    assert found == Quota("group", 7, None, 99, 10, 12)
    assert found.free_bytes is None and found.free_files == 0


def asked(
    path: Path, mount: Mount | None = EXT4, *, user: int = 1000, group: int | None = 100
) -> list[tuple[int, int]]:
    seen = []

    def ask(fd: int, kind: int, number: int) -> bytes | None:
        seen.append((kind, number))
        return None

    assert quotas(path, mount, user=user, group=group, ask=ask) == ()
    return seen


def test_user_and_group_are_asked_for(tmp_path: Path) -> None:
    assert asked(tmp_path) == [(0, 1000), (1, 100)]


def test_root_has_no_quota_and_neither_has_a_type_without(tmp_path: Path) -> None:
    assert asked(tmp_path, user=0) == []
    assert asked(tmp_path, Mount(1, (0, 1), "/", "/", "fuse.mfs", "mfs#a")) == []
    assert asked(tmp_path, None) == []
    assert asked(tmp_path / "gone") == []
    assert asked(tmp_path, group=0) == [(0, 1000)]


def test_a_folder_that_hands_its_group_on_is_charged_to_that_group(tmp_path: Path) -> None:
    assert asked(tmp_path, group=None) == [(0, 1000)] + [(1, os.getegid())] * bool(os.getegid())
    if os.geteuid() == 0:
        os.chown(tmp_path, 0, 4321)
        os.chmod(tmp_path, 0o2775)
        assert asked(tmp_path, group=None) == [(0, 1000), (1, 4321)]


def test_a_kernel_that_tells_nothing_limits_nothing(tmp_path: Path) -> None:
    if quotas(tmp_path, EXT4, user=4_000_000, group=4_000_000) != ():
        pytest.fail("nobody gave that user a quota")
