"""The service in a thread, and what it says on the terminal."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Sequence

from vitrail.bench import BenchConfig, BenchResult
from vitrail.runs.run import Run
from vitrail.serve.browser import BrowserConfig, bench_in_browsers

LINK = re.compile(r"(https?://\S+)/#(\S+)")


class Server:
    """``bench_in_browsers`` in a thread; ends when as many devices are done as the configuration says."""

    def __init__(self, runs: Sequence[Run], config: BrowserConfig, protocol: BenchConfig) -> None:
        self.said: queue.Queue[str] = queue.Queue()
        self.told: list[str] = []
        self.results: list[BenchResult] = []
        self._thread = threading.Thread(target=self._run, args=(runs, config, protocol), daemon=True)
        self._thread.start()

    def _run(self, runs: Sequence[Run], config: BrowserConfig, protocol: BenchConfig) -> None:
        self.results = bench_in_browsers(runs, config, protocol, tell=self.said.put)

    def link(self) -> tuple[str, str]:
        """Address and invitation of the next link on the terminal."""
        while True:
            self.told.append(self.said.get(timeout=30))
            if found := LINK.search(self.told[-1]):
                return found[1], found[2]

    def end(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        while not self.said.empty():
            self.told.append(self.said.get())
