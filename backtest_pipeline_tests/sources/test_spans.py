"""Half-open stretches of time, against sets of instants."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.sources.spans import Span, minus, overlap, union

spans = st.builds(Span, st.integers(0, 30), st.integers(0, 30))


def instants(*many: Span) -> set[int]:
    return {at for span in many for at in range(span.start, span.end)}


@given(st.lists(spans))
def test_a_union_has_the_same_instants_in_the_fewest_spans(many: list[Span]) -> None:
    joined = union(many)
    assert instants(*joined) == instants(*many)
    assert all(a.end < b.start for a, b in pairwise(joined))
    assert all(span.start < span.end for span in joined)


@given(spans, st.lists(spans))
def test_what_is_left_of_a_span_is_what_no_other_has(span: Span, others: list[Span]) -> None:
    rest = minus(span, others)
    assert instants(*rest) == instants(span) - instants(*others)
    assert rest == union(rest)


@given(spans, spans)
def test_an_overlap_is_what_both_have(one: Span, other: Span) -> None:
    assert instants(overlap(one, other)) == instants(one) & instants(other)
