"""Which bytes are asked for: all that is wanted, little else, in requests of a bearable size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outlast.data.index import Chunk, FileIndex, Group, Run
from outlast.data.ranges import GAP_BYTES, REQUEST_BYTES, blocks, size_of, wanted_groups


@st.composite
def files(draw: st.DrawFn) -> FileIndex:
    groups, at = [], 4
    for _ in range(draw(st.integers(1, 6))):
        chunks = []
        for name in "abc":
            size = draw(st.sampled_from([10, 5000, 200_000, 9 << 20]))
            chunks.append(Chunk(name, at, size, size))
            at += size
        groups.append(Group(draw(st.integers(1, 50)), tuple(chunks)))
    return FileIndex("f", "parquet", at, None, tuple(groups))


@given(files(), st.data())
def test_whole_row_groups_are_covered_once_by_requests_of_bounded_size(file: FileIndex, data: st.DataObject) -> None:
    columns = data.draw(st.sets(st.sampled_from("abc"), min_size=1).map(frozenset))
    wanted = wanted_groups(file, [Run(0, 0, file.rows or 0)])
    asked = blocks(file, wanted, columns)
    places = sorted((block.start, block.stop) for block in asked)
    assert all(a[1] <= b[0] for a, b in zip(places, places[1:], strict=False))
    assert all(block.stop - block.start <= REQUEST_BYTES for block in asked)
    chunks = [chunk for group in file.groups or () for chunk in group.chunks if chunk.column in columns]
    for chunk in chunks:
        inside = sum(max(0, min(b, chunk.start + chunk.length) - max(a, chunk.start)) for a, b in places)
        assert inside == chunk.length
    assert size_of(asked) <= sum(chunk.length for chunk in chunks) + GAP_BYTES * 2 * len(chunks)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.data())
def test_the_wanted_rows_of_each_group_are_those_of_the_runs(sizes: list[int], data: st.DataObject) -> None:
    total = sum(sizes)
    chosen = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=1)))
    file = FileIndex("f", "parquet", 0, None, tuple(Group(size) for size in sizes))
    needs = wanted_groups(file, [Run(0, row, row + 1) for row in chosen])
    found = [need.before + row for need in needs for first, stop in need.runs for row in range(first, stop)]
    assert found == chosen
    for need in needs:
        assert need.share == need.runs[-1][1] / sizes[need.group]


def test_of_a_large_row_group_only_the_beginning_is_asked_for_where_only_its_first_rows_are_wanted() -> None:
    file = FileIndex("f", "parquet", 1 << 30, None, (Group(1_000_000, (Chunk("a", 4, 300 << 20, 900 << 20),)),))
    asked = size_of(blocks(file, wanted_groups(file, [Run(0, 0, 1000)]), None))
    assert asked <= 2 << 20
