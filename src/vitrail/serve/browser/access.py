"""Who may take part, and how much: invitations that work once, sessions, and buckets that limit the rate."""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

TOKEN_BYTES = 18
"""144 random bits: 24 letters in the link, short enough for a small QR code."""

MAX_ADDRESSES = 4096
"""Buckets of addresses that are remembered; the oldest are forgotten first."""


@dataclass(kw_only=True)
class Bucket:
    """Lets ``burst`` requests through at once, and ``rate`` a second in the long run."""

    rate: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    level: float = field(init=False)
    filled: float = field(init=False)

    def __post_init__(self) -> None:
        self.level, self.filled = self.burst, self.clock()

    def take(self) -> bool:
        """One request; False if it is one too many."""
        now = self.clock()
        self.level = min(self.burst, self.level + (now - self.filled) * self.rate)
        self.filled = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


@dataclass(kw_only=True)
class DeviceSession:
    """A device that has joined.

    Attributes:
        device: its row in the store.
        label: how it is called, different from all others.
        bucket: of its requests.
        num_posts: measurements that it has sent.
        done: it has measured everything.
    """

    device: int
    label: str
    bucket: Bucket
    num_posts: int = 0
    done: bool = False


class Access:
    """Invitations and sessions of one server. Used by one thread, the event loop's.

    Args:
        max_sessions: that may ever be opened.
        clock: seconds, for the buckets.
    """

    def __init__(self, max_sessions: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_sessions = max_sessions
        self._clock = clock
        self._sessions: dict[str, DeviceSession] = {}
        self._strangers: OrderedDict[str, Bucket] = OrderedDict()
        self.invitation = secrets.token_urlsafe(TOKEN_BYTES)

    @property
    def is_full(self) -> bool:
        return len(self._sessions) >= self._max_sessions

    @property
    def sessions(self) -> tuple[DeviceSession, ...]:
        return tuple(self._sessions.values())

    def accepts(self, invitation: str) -> bool:
        """Use an invitation up; the next one is in :attr:`invitation`."""
        if not hmac.compare_digest(invitation.encode(), self.invitation.encode()):
            return False
        self.invitation = secrets.token_urlsafe(TOKEN_BYTES)
        return True

    def return_invitation(self, invitation: str) -> None:
        """Make an invitation valid again that was used up although its device could not join."""
        self.invitation = invitation

    def open_session(self, device: int, label: str) -> str:
        """A session of a device that was accepted; its token."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._sessions[token] = DeviceSession(
            device=device, label=label, bucket=Bucket(rate=20, burst=200, clock=self._clock)
        )
        return token

    def session(self, token: str) -> DeviceSession | None:
        """Whose token it is. Tokens are too long to be found out by how long the look-up takes."""
        return self._sessions.get(token)

    def lets_in(self, address: str) -> bool:
        """Whether a stranger may try again, who knows no token yet or a wrong one."""
        bucket = self._strangers.pop(address, None) or Bucket(rate=1, burst=30, clock=self._clock)
        self._strangers[address] = bucket
        while len(self._strangers) > MAX_ADDRESSES:
            self._strangers.popitem(last=False)
        return bucket.take()
