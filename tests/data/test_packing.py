"""Packing documents into blocks: what goes in comes out, wherever one goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outlast.data.text.packing import Packer, Place, Shape

BOS, EOS = 1000, 1001
DOCUMENTS = st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=20)
SHAPES = st.builds(Shape, length=st.integers(3, 9), bos=st.just(BOS), eos=st.just(EOS), wrap=st.booleans())


def plainly(documents: list[list[int]], shape: Shape) -> list[list[int]]:
    """The definition, in the plainest words."""
    flat = [token for document in documents for token in [*document, EOS]]
    pieces = [flat[at : at + shape.inner] for at in range(0, len(flat) - shape.inner + 1, shape.inner)]
    return [[BOS, *piece, EOS] for piece in pieces] if shape.wrap else pieces


@given(DOCUMENTS, SHAPES, st.integers(1, 7))
def test_blocks_are_the_documents_with_eos_between_whatever_the_batches(
    documents: list[list[int]], shape: Shape, size: int
) -> None:
    packer = Packer(shape, "<u2")
    found = [block for at in range(0, len(documents), size) for block in packer.add(documents[at : at + size]).tolist()]
    assert found == plainly(documents, shape)
    assert packer.left_over == sum(len(document) + 1 for document in documents) - len(found) * shape.inner


@given(DOCUMENTS, SHAPES, st.data())
def test_going_on_at_a_place_gives_the_rest(documents: list[list[int]], shape: Shape, data: st.DataObject) -> None:
    whole = plainly(documents, shape)
    done, place = 0, Place()
    for _ in range(3):
        packer = Packer(shape, "<u2", place)
        rest = packer.add(documents[place.document :]).tolist()
        assert rest == whole[done:]
        for _ in range(2):
            more = data.draw(st.integers(0, len(whole) - done))
            done, place = done + more, packer.place_after(more)
        assert place.document <= len(documents)


def test_what_bos_and_eos_around_means() -> None:
    packer = Packer(Shape(5, BOS, EOS, True), "<u2")
    assert packer.add([[1, 2], [3, 4, 5]]).tolist() == [[BOS, 1, 2, EOS, EOS], [BOS, 3, 4, 5, EOS]]
    assert packer.left_over == 1
