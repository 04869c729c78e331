"""Stretches of time, half-open, in microseconds since 1970 UTC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """The instants `start <= t < end`; empty where the end is not after the start."""

    start: int
    end: int


def union(spans: Iterable[Span]) -> list[Span]:
    """The same instants as the fewest spans, in order; none touches the next."""
    joined: list[Span] = []
    for span in sorted(span for span in spans if span.start < span.end):
        if joined and span.start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined


def minus(span: Span, others: Iterable[Span]) -> list[Span]:
    """The parts of a span that lie in none of the others, in order."""
    return list(_rest(span, union(others)))


def _rest(span: Span, others: list[Span]) -> Iterator[Span]:
    at = span.start
    for other in others:
        if other.start >= span.end:
            break
        if at < other.start:
            yield Span(at, other.start)
        at = max(at, other.end)
    if at < span.end:
        yield Span(at, span.end)


def overlap(span: Span, other: Span) -> Span:
    """What two spans share; an empty span where that is nothing."""
    return Span(max(span.start, other.start), min(span.end, other.end))
