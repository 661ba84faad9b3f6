from __future__ import annotations

from hypothesis import given, strategies as st

from vitrail.bench import pareto_front

coordinate = st.integers(0, 6).map(float)  # few values, so that ties are common


def dominates(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(st.lists(st.tuples(coordinate, coordinate), max_size=30))
def test_front_is_what_nobody_dominates(points):
    brute = {i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)}
    front = pareto_front(points)
    assert set(front) == brute
    assert len(front) == len(set(front))
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_by_hand():
    # cheap and poor, dominated, good value, dominated by equal cost, best
    assert pareto_front([(1, 60), (3, 55), (2, 80), (2, 79), (9, 90)]) == [0, 2, 4]
