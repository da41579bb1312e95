"""Moving a cache: what is never moved, that the copy equals the source, and that a second run goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import durable, journal
from outlast.caches import Cost, Sweep, by_id, places
from outlast.caches.copying import Copier, Log
from outlast.caches.migrate import Moved, carry_out
from outlast.caches.move import Move, find, plan, refusal
from outlast.caches.trees import Entry, Tree, differences, moved_link, scan
from outlast.errors import BadInput, NoRoom, OutlastError
from outlast.host import Budget, tree
from outlast.journal import Journal
from tests.builders import opened_by_another_process


def make_cache(root: Path) -> Path:
    """A hub cache with all that a copy can get wrong."""
    blobs = root / "models--a--b" / "blobs"
    (root / "models--a--b" / "snapshots" / "1").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "x").write_bytes(os.urandom(300_000))
    (blobs / "x").chmod(0o400)
    (root / "hard").hardlink_to(blobs / "x")
    (root / "models--a--b" / "snapshots" / "1" / "w").symlink_to("../../blobs/x")
    (root / "absolute").symlink_to(blobs / "x")
    (root / "out").symlink_to("/etc/hostname")
    (root / "climbs").symlink_to("../beside")
    (root / "dangling").symlink_to("nothing")
    (root / "name\nwith\x1b[31m bytes").write_bytes(b"1")
    (root / os.fsdecode(b"\xff")).write_bytes(b"2")
    with (root / "sparse").open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"in the middle")
    (root / "closed").mkdir()
    (root / "closed" / "file").write_bytes(b"3")
    (root / "closed").chmod(0o555)
    os.utime(root / "models--a--b", ns=(10**18, 10**18))
    return root


def content(root: Path) -> dict[str, object]:
    """What a user would compare, with links read from where they are."""
    found: dict[str, object] = {}
    groups: dict[int, list[str]] = {}
    for path, entry in scan(root).entries.items():
        if entry.kind == "file":
            groups.setdefault(entry.inode, []).append(path)
            found[path] = ((root / path).read_bytes(), entry.mode, entry.modified_ns)
        elif entry.kind == "link":
            found[path] = entry.text
        else:
            found[path] = (entry.mode, entry.modified_ns)
    found["hard links"] = sorted(group for group in groups.values() if len(group) > 1)
    return found


@pytest.fixture
def move(tmp_path: Path) -> Iterator[Move]:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "beside").touch()
    source = make_cache(tmp_path / "old" / "hub")
    yield Move(source, tmp_path / "new" / "hub", "link", by_id("hf-hub"))
    for folder in tmp_path.rglob("closed"):
        folder.chmod(0o755)


def carried(move: Move) -> Moved:
    return carry_out(plan(move), Journal(move.source.parent.parent))


def test_the_copy_equals_the_source_and_a_link_stays_where_it_was(move: Move, tmp_path: Path) -> None:
    before, size = content(move.source), tree(move.source).allocated_bytes
    before["absolute"] = "models--a--b/blobs/x"
    before["climbs"] = str(tmp_path / "old" / "beside")
    done = carried(move)
    assert content(move.target) == before
    assert (move.source.readlink(), done.kept) == (move.target, None)
    assert abs(tree(move.target).allocated_bytes - size) < 64 << 10, "holes stay holes"
    assert done.freed_bytes == pytest.approx(size, abs=64 << 10)
    assert sorted(os.listdir(move.source.parent)) == ["beside", "hub"] and os.listdir(move.target.parent) == ["hub"]


def test_every_step_is_in_the_journal(move: Move, tmp_path: Path) -> None:
    carried(move)
    names = [event.name for run in journal.runs(tmp_path) for event in journal.read(tmp_path, run)]
    assert names == ["migrate_begun", "migrate_copied", "migrate_switched", "migrate_deleted"]


def test_by_a_variable_nothing_stays_where_it_was(move: Move) -> None:
    by_variable = replace(move, how="env")
    carried(by_variable)
    assert not os.path.lexists(move.source)
    assert by_variable.export == f"HF_HUB_CACHE={move.target}"
    assert plan(by_variable).is_there


def test_a_second_run_of_what_is_done_does_nothing(move: Move) -> None:
    carried(move)
    before = content(move.target)
    found = plan(move)
    assert found.is_there and carry_out(found, Journal(move.source.parent)).freed_bytes == 0
    assert content(move.target) == before


def test_what_is_open_is_not_moved_and_who_has_it_is_named(move: Move) -> None:
    before = content(move.source)
    with opened_by_another_process(move.source / "sparse") as pid:
        found = plan(move)
        assert str(pid) in found.problems[0]
        with pytest.raises(OutlastError, match=str(pid)):
            carry_out(found, Journal(move.source.parent))
    assert content(move.source) == before and not move.target.parent.exists()


def test_a_held_lock_of_the_library_counts_as_use(move: Move) -> None:
    lock = move.source / ".locks" / "models--a--b" / "x.lock"
    lock.parent.mkdir(parents=True)
    with durable.locked(lock, wait=True):
        assert "is held" in plan(move).problems[0] or "open" in plan(move).problems[0]


def test_a_use_that_begins_while_copying_keeps_the_source(move: Move) -> None:
    before = content(move.source)
    found = plan(move)
    with pytest.raises(OutlastError, match="has it"):
        carry_out(found, Journal(move.source.parent), look=lambda path, cache: ("1 (trainer) has it",))
    assert content(move.source) == before and not move.target.exists()
    assert plan(move).verified_bytes > 0, "the second run does not copy again"
    carried(move)
    assert move.source.is_symlink()


def test_what_is_written_after_the_last_look_is_kept(move: Move) -> None:
    looks = []

    def look(path: Path, cache: object) -> tuple[str, ...]:
        looks.append(path)
        if path == move.backup:
            return ("1 (trainer) has it",)
        return ()

    done = carry_out(plan(move), Journal(move.source.parent), look=look)
    assert done.kept and "has it" in done.kept and move.backup.is_dir()
    (move.backup / "late").write_bytes(b"of the trainer")
    again = carried(move)
    assert again.kept and "late" in again.kept and (move.backup / "late").exists()
    (move.backup / "late").unlink()
    assert carried(move).kept is None and not move.backup.exists()


def test_what_changes_while_it_is_copied_is_copied_again(move: Move) -> None:
    found = plan(move)

    def look(path: Path, cache: object) -> tuple[str, ...]:
        (move.source / "new").write_bytes(b"once") if not (move.source / "new").exists() else None
        return ()

    carry_out(found, Journal(move.source.parent), look=look)
    assert (move.target / "new").read_bytes() == b"once"


def test_what_goes_on_changing_is_given_up_with_the_source_whole(move: Move) -> None:
    count = iter(range(100))

    def look(path: Path, cache: object) -> tuple[str, ...]:
        (move.source / "log").write_text(f"line {next(count)}")
        return ()

    with pytest.raises(OutlastError, match=r"copied 4 times"):
        carry_out(plan(move), Journal(move.source.parent), look=look)
    assert not move.source.is_symlink() and not move.target.exists()


def test_a_damaged_copy_is_never_switched_to(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    from outlast.caches import copying

    before = content(move.source)
    monkeypatch.setattr(copying, "_read_back", lambda path: "another digest")
    with pytest.raises(OutlastError, match="does not read back"):
        carried(move)
    assert content(move.source) == before and not move.target.exists()


def test_too_little_room_is_said_before_a_byte_is_copied(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_BUDGETS", str(Budget(move.target.parent, 1000).root) + "=1000")
    move.target.parent.mkdir()
    found = plan(move)
    assert found.fits is False
    with pytest.raises(NoRoom, match="budget"):
        carry_out(found, Journal(move.source.parent))
    assert os.listdir(move.target.parent) == []


def test_after_a_kill_between_renaming_the_copy_and_the_switch_it_is_compared_again(move: Move) -> None:
    _stop_before_the_switch(move)
    (move.source / "written meanwhile").write_bytes(b"4")
    carried(move)
    assert (move.target / "written meanwhile").read_bytes() == b"4" and move.source.is_symlink()


def test_what_somebody_else_put_into_the_target_is_not_deleted(move: Move) -> None:
    _stop_before_the_switch(move)
    (move.target / "theirs").write_bytes(b"5")
    with pytest.raises(OutlastError, match="theirs was made since"):
        carried(move)
    assert (move.target / "theirs").read_bytes() == b"5" and move.source.is_dir()


def _stop_before_the_switch(move: Move) -> None:
    from outlast.caches import migrate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "_switch", lambda move: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            carried(move)
    assert move.target.is_dir() and not move.source.is_symlink()


def test_two_at_once_do_not_meet(move: Move) -> None:
    found = plan(move)
    move.staging.mkdir(parents=True)
    with durable.locked(move.staging / "lock", wait=True), pytest.raises(OutlastError, match="another outlast migrate"):
        carry_out(found, Journal(move.source.parent))


def test_another_move_to_the_same_target_is_refused(move: Move, tmp_path: Path) -> None:
    with pytest.raises(OutlastError, match="has it"):
        carry_out(plan(move), Journal(tmp_path), look=lambda path, cache: ("x has it",))
    (tmp_path / "old" / "other").mkdir()
    with pytest.raises(BadInput, match="has begun"):
        plan(replace(move, source=tmp_path / "old" / "other"))


def test_a_link_is_said_to_be_one_and_where_it_leads(move: Move, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(move.source)
    with pytest.raises(BadInput, match=f"is a link already: it is at {move.source}"):
        plan(replace(move, source=tmp_path / "link"))


def test_what_cannot_be_copied_is_named(move: Move) -> None:
    os.mkfifo(move.source / "pipe")
    assert plan(move).problems[0].endswith("pipe is a socket, a pipe or a device")


def test_a_full_target_is_no_room_and_the_source_stays(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> None:
        raise OSError(28, "No space left on device")

    found = plan(move)
    from outlast.caches import copying

    monkeypatch.setattr(copying.durable, "write_all", full)
    with pytest.raises(NoRoom, match="No space left"):
        carry_out(found, Journal(move.source.parent))
    assert move.source.is_dir() and not move.source.is_symlink()


@pytest.mark.parametrize(
    "source, target, why",
    [
        ("/", "/data/x", "folder of the system"),
        ("/usr", "/data/x", "folder of the system"),
        ("/home/me", "/data/x", "holds your home"),
        ("/home/me/.cache/hub", "/home/me/.cache/hub", "same folder"),
        ("/home/me/.cache/hub", "/home/me/.cache/hub/new", "lies in what is to be moved"),
        ("/home/me/.cache/hub", "/home/me/.cache", "source lies in the target"),
        ("/home/me/volume", "/data/x", "volume of its own"),
        ("/home/me/.cache/hub", "/home/me/volume", "name a folder below it, such as /home/me/volume/hub"),
        ("/home/me/code/.git/lfs", "/data/x", "git work tree"),
    ],
)
def test_what_is_no_cache_is_never_moved(source: str, target: str, why: str) -> None:
    move = Move(Path(source), Path(target), "link")
    found = refusal(move, home=Path("/home/me"), is_mount=lambda path: path == Path("/home/me/volume"))
    assert found and why in found


def test_a_git_work_tree_is_never_moved(tmp_path: Path) -> None:
    (tmp_path / "a" / "code" / ".git").mkdir(parents=True)
    found = refusal(Move(tmp_path / "a" / "code", tmp_path / "b", "link"), home=Path("/nowhere"))
    assert found and "git work tree" in found


def test_what_the_catalogue_says_is_no_cache_is_never_moved(tmp_path: Path) -> None:
    row = replace(by_id("hf-home"), role="none", sweep=Sweep.NEVER, cost=Cost.NEVER)
    found = refusal(Move(tmp_path / "a" / "x", tmp_path / "b", "link", row), home=Path("/nowhere"))
    assert found and "is no cache" in found


def test_a_cache_is_found_by_its_id_and_by_its_path(tmp_path: Path) -> None:
    known = places({"HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")})
    by_name = find("hf-hub", str(tmp_path / "new"), "link", known)
    assert by_name == find(str(tmp_path / "hub"), str(tmp_path / "new"), "link", known)
    assert by_name.cache is not None and by_name.cache.id == "hf-hub"
    with pytest.raises(BadInput, match="neither the id of a cache"):
        find("hf-hubb", "/data/x", "link", known)
    with pytest.raises(BadInput, match="no variable"):
        find(str(tmp_path / "mine"), "/data/x", "env", known)


# pure


NAMES = st.sampled_from(["a", "b", "c", "..", "."])


@given(st.lists(NAMES, min_size=1, max_size=6), st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.booleans())
def test_a_moved_link_leads_to_the_same_thing_or_its_copy(parts: list[str], path: list[str], is_absolute: bool) -> None:
    source, target = "/one/two/tree", "/other/place"
    text = "/".join(parts)
    text = os.path.normpath(f"{source}/{text}") if is_absolute else text
    name = "/".join(path)
    goal = os.path.normpath(os.path.join(os.path.dirname(f"{source}/{name}"), text))
    moved = os.path.normpath(os.path.join(os.path.dirname(f"{target}/{name}"), moved_link(text, name, source)))
    is_inside = goal == source or goal.startswith(source + "/")
    assert moved == (target + goal[len(source) :] if is_inside else goal)


def entry(path: str, inode: int = 1, **more: object) -> Entry:
    return replace(Entry(path, "file", 0o644, (0, 0), 10, 4096, inode, 1, 5, 5), **more)  # type: ignore[arg-type]


def test_a_difference_of_any_kind_is_found() -> None:
    source = Tree({"a": entry("a", 1), "b": entry("b", 1), "l": entry("l", 3, kind="link", text="a")}, ())
    verified = {"a": source.entries["a"].stamp}
    same = {"a": entry("a", 7), "b": entry("b", 7), "l": entry("l", 9, kind="link", text="a")}
    assert differences(source, Tree(same, ()), "/x", verified) == {}
    worse = {
        "missing": {k: v for k, v in same.items() if k != "b"},
        "strange": {**same, "z": entry("z", 11)},
        "shorter": {**same, "a": entry("a", 7, bytes=9), "b": entry("b", 7, bytes=9)},
        "mode": {**same, "a": entry("a", 7, mode=0o600)},
        "split": {**same, "b": entry("b", 8)},
        "link": {**same, "l": entry("l", 9, kind="link", text="b")},
        "kind": {**same, "l": entry("l", 9)},
    }
    assert all(differences(source, Tree(copy, ()), "/x", verified) for copy in worse.values())
    assert set(differences(source, Tree(same, ()), "/x", {})) == {"a", "b"}
    touched = {**source.entries, "a": entry("a", 1, changed_ns=6)}
    assert "a" in differences(Tree(touched, ()), Tree(same, ()), "/x", verified)


def test_a_second_copy_hashes_only_what_was_not_verified(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in "xyz":
        (tmp_path / "a" / name).write_bytes(name.encode() * 1000)
    told: list[int] = []
    log = Log(tmp_path / "log")
    Copier(tmp_path / "a", tmp_path / "b", log, told.append).run(scan(tmp_path / "a"))
    (tmp_path / "a" / "y").write_bytes(b"other")
    Copier(tmp_path / "a", tmp_path / "b", Log(tmp_path / "log"), told.append).run(scan(tmp_path / "a"))
    assert told == [3000, 5] and (tmp_path / "b" / "y").read_bytes() == b"other"


def test_a_torn_line_of_the_log_is_read_past(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Log(path).add({"a": ("1:2:3:4", "d")})
    with path.open("ab") as file:
        file.write(b'{"path": "b", "sta')
    Log(path).add({"c": ("5:6:7:8", "d")})
    assert Log(path).stamps == {"a": "1:2:3:4", "c": "5:6:7:8"}


def test_cp_and_ours_agree(tmp_path: Path) -> None:
    source = make_cache(tmp_path / "source")
    for path in ("absolute", "climbs"):
        (source / path).unlink()
    subprocess.run(["cp", "-a", source, tmp_path / "cp"], check=True)
    Copier(source, tmp_path / "ours", Log(tmp_path / "log")).run(scan(source))
    assert content(tmp_path / "ours") == content(tmp_path / "cp")
