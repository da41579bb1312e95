"""Which mount a path is on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.host import Mount, mount_at, parse_mounts

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a volume")

# No mount's name holds a NUL; lone surrogates stand for bytes that are no UTF-8.
names = st.text(st.characters(exclude_characters="\0\n", exclude_categories=()), min_size=1, max_size=12)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789.", min_size=1, max_size=12)
mounts = st.builds(
    Mount,
    st.integers(1, 10**6),
    st.tuples(st.integers(0, 4095), st.integers(0, 1 << 20)),
    names.map(lambda name: "/" + name),
    st.one_of(names, st.just("with\nnewline")).map(lambda name: "/" + name),
    words,
    names,
)


def escaped(text: str) -> str:
    """As the kernel writes it (mangle() in fs/proc_namespace.c)."""
    return "".join(f"\\{ord(letter):03o}" if letter in " \t\n\\#" else letter for letter in text)


def line(mount: Mount, optional: list[str]) -> str:
    major, minor = mount.device
    before = [str(mount.number), "1", f"{major}:{minor}", escaped(mount.root), escaped(mount.point), "rw,relatime"]
    return " ".join([*before, *optional, "-", escaped(mount.fstype), escaped(mount.source), "rw"])


@given(st.lists(st.tuples(mounts, st.lists(st.sampled_from(["shared:1", "master:7", "unbindable"]), max_size=3))))
def test_what_the_kernel_writes_is_read_back(found: list[tuple[Mount, list[str]]]) -> None:
    text = "".join(line(mount, optional) + "\n" for mount, optional in found)
    assert parse_mounts(text) == tuple(mount for mount, _ in found)


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    parse_mounts(text)


def test_a_real_line_is_read() -> None:
    text = "58 27 0:58 / /mnt/a\\040b\\134c rw,relatime shared:3 - fuse.mfs mfs#euro.runpod.net:9421 rw,user_id=0\n"
    (found,) = parse_mounts(text + "no mount\n\n")
    assert found == Mount(58, (0, 58), "/", "/mnt/a b\\c", "fuse.mfs", "mfs#euro.runpod.net:9421")
    assert str(found) == "/mnt/a b\\c (fuse.mfs, mfs#euro.runpod.net:9421)"


@pytest.mark.parametrize(
    ("fstype", "source", "is_network"),
    [
        ("ext4", "/dev/vda", False),
        ("overlay", "overlay", False),
        ("tmpfs", "tmpfs", False),
        ("fuseblk", "/dev/sdb1", False),
        ("fuse.fuse-overlayfs", "fuse-overlayfs", False),
        ("nfs4", "server:/export", True),
        ("lustre", "10.0.0.1@tcp:/work", True),
        ("gpfs", "work", True),
        ("fuse.mfs", "mfs#euro.runpod.net:9421", True),
        ("fuse", "mfs#euro.runpod.net:9421", True),
        ("fuse.gcsfuse", "bucket", True),
        ("9p", "C:\\", True),
    ],
)
def test_a_network_file_system_is_known_by_its_type(fstype: str, source: str, is_network: bool) -> None:
    assert Mount(1, (0, 1), "/", "/x", fstype, source).is_network == is_network


def test_every_path_here_has_a_mount(tmp_path: Path) -> None:
    found = mount_at(tmp_path)
    assert found is not None
    assert found in parse_mounts(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    assert str(tmp_path.resolve()).startswith(found.point)


def test_what_is_not_there_has_none(tmp_path: Path) -> None:
    assert mount_at(tmp_path / "gone") is None
    assert mount_at(tmp_path, proc=tmp_path) is None


@only_root
def test_of_two_mounts_on_one_point_it_is_the_one_that_is_seen(tmp_path: Path) -> None:
    place = tmp_path / "a place\\with\ttraps"
    place.mkdir()
    for name in ("below", "above"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", name, place], check=True)
    try:
        (place / "file").touch()
        found = mount_at(place / "file")
        assert found is not None and (found.point, found.fstype, found.source) == (str(place), "tmpfs", "above")
    finally:
        subprocess.run(["umount", place], check=True)
        subprocess.run(["umount", place], check=True)
    after = mount_at(place)
    assert after is not None and after.point != str(place)
