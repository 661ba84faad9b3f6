from __future__ import annotations

from vitrail.serve.browser import access
from vitrail.serve.browser.access import Access, Bucket


def test_a_bucket_lets_a_burst_through_and_then_its_rate(clock):
    bucket = Bucket(rate=2, burst=5, clock=clock)
    assert [bucket.take() for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now += 1
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.now += 1000
    assert sum(bucket.take() for _ in range(20)) == 5


def test_every_invitation_is_new_and_long(clock):
    door = Access(max_sessions=1, clock=clock)
    seen = set()
    for _ in range(50):
        seen.add(door.invitation)
        assert door.accepts(door.invitation)
    assert len(seen) == 50
    assert all(len(token) >= 24 for token in seen)
    assert not any(door.accepts(token) for token in seen)


def test_tokens_of_sessions_are_not_invitations(clock):
    door = Access(max_sessions=2, clock=clock)
    token = door.open_session(1, "a")
    assert door.session(token).device == 1
    assert door.session(door.invitation) is None
    assert not door.accepts(token)
    assert not door.is_full
    door.open_session(2, "b")
    assert door.is_full


def test_strangers_are_forgotten_before_they_fill_the_memory(clock, monkeypatch):
    monkeypatch.setattr(access, "MAX_ADDRESSES", 10)
    door = Access(max_sessions=1, clock=clock)
    for number in range(1000):
        assert door.lets_in(f"10.0.{number // 256}.{number % 256}")
    assert len(door._strangers) == 10
