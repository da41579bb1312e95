"""What to free, in which order, and how much that frees."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from outlast.caches import Cost, Item, Linked, Stored, Wish, decide, frees_bytes
from outlast.caches.plan import KINDS

ROOT = Path("/caches")


def item(name: str, size: int = 100, **more: object) -> Item:
    facts: dict[str, object] = {"cost": Cost.SECONDS, "kind": "entry", "paths": (ROOT / name,), **more}
    return Item("some", name=name, root=ROOT, single_bytes=size, **facts)  # type: ignore[arg-type]


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    """Things of all kinds; some share hard-linked files, some are in use."""
    names = draw(st.lists(st.integers(0, 30), unique=True, max_size=12))
    inodes = [(1, number) for number in range(4)]
    links = {inode: draw(st.integers(1, 4)) for inode in inodes}
    found = []
    for name in names:
        linked = tuple(
            Linked(inode, links[inode], draw(st.integers(1, links[inode])), 1000)
            for inode in draw(st.lists(st.sampled_from(inodes), unique=True, max_size=3))
        )
        found.append(
            item(
                str(name), draw(st.integers(0, 10_000)), kind=draw(st.sampled_from(KINDS)), linked=linked,
                cost=draw(st.sampled_from(Cost)), newest=draw(st.floats(0, 1e9)),
                in_use=draw(st.sampled_from([None, "open"])),
            )
        )  # fmt: skip
    return found


WISHES = st.builds(
    Wish,
    st.none() | st.integers(0, 50_000),
    st.sampled_from([Cost.SECONDS, Cost.MINUTES, Cost.DOWNLOAD]),
    st.just(frozenset()),
    st.sampled_from([(), ("1*",), ("/caches/2",)]),
)


@given(items(), WISHES)
def test_nothing_in_use_kept_or_irreplaceable_is_ever_planned(found: list[Item], wish: Wish) -> None:
    for one in decide(found, wish).items:
        assert one.in_use is None and (one.cost is not Cost.NEVER or one.kind == "named")
        assert one.kind == "named" or one.cost.value <= wish.dearest.value
        assert not (wish.keep == ("1*",) and one.name.startswith("1"))
        assert not (wish.keep == ("/caches/2",) and one.name == "2")


@given(items(), WISHES)
def test_everything_found_is_either_planned_or_left_with_a_reason(found: list[Item], wish: Wish) -> None:
    plan = decide(found, wish)
    assert len(plan.items) + len(plan.left) == len(found)
    assert all(reason for _, reason in plan.left)


@given(items(), WISHES)
def test_the_cheapest_to_make_again_goes_first_and_no_more_than_is_needed(found: list[Item], wish: Wish) -> None:
    plan = decide(found, wish)
    costs = [one.cost.value for one in plan.items]
    assert costs == sorted(costs)
    if wish.free_bytes is not None and plan.items:
        assert frees_bytes(plan.items[:-1]) < wish.free_bytes or plan.frees_bytes == frees_bytes(plan.items[:-1])
        assert plan.short_bytes == max(0, wish.free_bytes - plan.frees_bytes)


@given(items())
def test_a_hard_linked_file_counts_once_and_only_with_its_last_name(found: list[Item]) -> None:
    whole = frees_bytes(found)
    assert whole <= sum(one.single_bytes for one in found) + 4 * 1000
    assert whole >= sum(frees_bytes([one]) for one in found if not one.linked)


def test_two_things_with_one_file_free_it_together_alone() -> None:
    half = [item(name, 10, linked=(Linked((1, 7), 2, 1, 5000),)) for name in ("a", "b")]
    assert frees_bytes(half[:1]) == 10 and frees_bytes(half) == 5020


def test_a_shared_payload_counts_with_the_last_link_to_it() -> None:
    links = frozenset({ROOT / "a" / "blobs" / "x", ROOT / "b" / "blobs" / "x"})
    both = [item(name, 10, stored=(Stored(ROOT / "blobs" / "ff", 5000, links),)) for name in ("a", "b")]
    assert frees_bytes(both[:1]) == 10 and frees_bytes(both) == 5020


def test_a_part_is_not_counted_beside_the_whole() -> None:
    whole = item("repo", 5000, kind="repo", cost=Cost.DOWNLOAD)
    part = item("part", 3000, kind="revision", cost=Cost.DOWNLOAD, paths=(ROOT / "repo" / "snapshots" / "r0",))
    plan = decide([whole, part], Wish(dearest=Cost.DOWNLOAD))
    assert plan.items == (whole,) and plan.frees_bytes == 5000
    assert decide([whole, part], Wish(2500, Cost.DOWNLOAD)).items == (part,)


def test_of_equals_the_one_that_was_written_longest_ago_goes_first() -> None:
    plan = decide([item("new", newest=2.0), item("old", newest=1.0)], Wish(free_bytes=1))
    assert [one.name for one in plan.items] == ["old"] and plan.left[0][1] == "not needed"


def test_what_is_kept_keeps_the_whole_around_it_and_its_own_parts() -> None:
    whole = item("repo", 5000, kind="repo", cost=Cost.DOWNLOAD)
    part = item("part", 3000, kind="revision", cost=Cost.DOWNLOAD, paths=(ROOT / "repo" / "snapshots" / "r0",))
    for pattern in ("part", "repo", "*/snapshots/*"):
        assert decide([whole, part], Wish(dearest=Cost.DOWNLOAD, keep=(pattern,))).items == ()


def test_thousands_of_things_are_planned_at_once() -> None:
    found = [item(f"kernel-{number}", number) for number in range(20_000)]
    assert decide(found, Wish()).frees_bytes == sum(range(20_000))
