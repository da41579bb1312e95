"""Disk over time as a line of blocks for a terminal, and as an SVG with axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from outlast.host import show_bytes

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 760, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 20, 46, 40
_MOST_POINTS = 1200
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """One course."""

    name: str
    """For the legend."""
    color: str
    """As CSS writes it."""
    points: Sequence[tuple[float, float]]
    """Steps and bytes, ascending in steps."""
    ends_at: int | None = None
    """Step at which it has no room to go on; None when it goes through."""


def sparkline(points: Sequence[tuple[float, float]], last: float, top: float, width: int = 48) -> str:
    """Most bytes in each of so many equal parts of the run, as blocks; ``×`` where it has ended before.

    Args:
        points: steps and bytes.
        last: the run's last step.
        top: bytes that a whole block stands for.
        width: characters.
    """
    cells: list[float | None] = [None] * width
    for step, size in points:
        place = min(width - 1, int(step / max(1, last) * width))
        cells[place] = max(cells[place] or 0.0, size)
    end = max(index for index, cell in enumerate(cells) if cell is not None)
    level, text = 0.0, ""
    for index, cell in enumerate(cells):
        level = cell if cell is not None else level
        text += _BLOCKS[min(7, int(level / max(1.0, top) * 8))] if index <= end else "×"
    return text


def svg(title: str, lines: Sequence[Line], last: float, limit: float | None) -> str:
    """A plot of bytes over steps, with the volume's size as a line across.

    Args:
        title: above it.
        lines: what is plotted.
        last: the run's last step.
        limit: bytes that the volume holds; None when unknown.
    """
    top = 1.08 * max([limit or 0.0, *(size for line in lines for _, size in line.points), 1.0])

    def x(step: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * step / max(1.0, last), 1)

    def y(size: float) -> float:
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * size / top, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="11" role="img"><title>{escape(title)}</title><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="16" font-size="13">{escape(title)}</text>',
    ]
    for tick in range(_TICKS + 1):
        size, step = top / 1.08 * tick / _TICKS, last * tick / _TICKS
        parts += [
            f'<line x1="{_LEFT}" y1="{y(size)}" x2="{_WIDTH - _RIGHT}" y2="{y(size)}" stroke="#e5e5e5"/>',
            f'<text x="{_LEFT - 6}" y="{y(size) + 4}" text-anchor="end">{show_bytes(round(size))}</text>',
            f'<text x="{x(step)}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{step:,.0f}</text>',
        ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">optimizer steps</text>')
    if limit is not None:
        parts += [
            f'<line x1="{_LEFT}" y1="{y(limit)}" x2="{_WIDTH - _RIGHT}" y2="{y(limit)}" stroke="#c00" '
            'stroke-dasharray="6 3"/>',
            f'<text x="{_LEFT + 4}" y="{y(limit) - 4}" fill="#c00">the volume: {show_bytes(round(limit))}</text>',
        ]
    for number, line in enumerate(lines):
        places = " ".join(f"{x(step)},{y(size)}" for step, size in _thinned(line.points))
        # What lies below is wider, so that it is seen where two courses are the same.
        parts.append(
            f'<polyline points="{places}" fill="none" stroke="{line.color}" '
            f'stroke-width="{1.4 + 1.6 * (len(lines) - 1 - number):.1f}"/>'
        )
        if line.ends_at is not None:
            parts.append(
                f'<text x="{x(line.ends_at)}" y="{y(line.points[-1][1]) - 6}" text-anchor="middle" '
                f'fill="{line.color}" font-size="14">×</text>'
            )
        at = _LEFT + 190 * number
        parts.append(f'<rect x="{at}" y="26" width="14" height="4" fill="{line.color}"/>')
        parts.append(f'<text x="{at + 20}" y="32">{escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points: of each part the lowest and the highest, in their order."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    part = -(-2 * len(points) // _MOST_POINTS)
    found: list[tuple[float, float]] = []
    for start in range(0, len(points), part):
        some = points[start : start + part]
        found += sorted({min(some, key=lambda p: p[1]), max(some, key=lambda p: p[1])})
    return found
