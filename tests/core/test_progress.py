from __future__ import annotations

import io
import logging
import sys

import pytest

from vitrail.core.progress import Bar, Whole, Work, tell, time_text, track


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (12 * 60, "12 min"),
        (90 * 60, "1 h 30 min"),
        (9 * 3600 + 59 * 60 + 50, "10 h"),
        (30 * 3600, "30 h"),
        (49 * 3600, "2 days 1 h"),
        (1e9, "11574 days 2 h"),
    ],
)
def test_a_duration_has_two_digits_or_so(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_a_line_is_printed_where_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("vitrail.test_progress")
    tell(log, "[bold] is no markup", progress=True)
    tell(log, "unseen", progress=False)
    assert capsys.readouterr().err == "[bold] is no markup\n"


def test_a_line_is_logged_and_not_printed_twice(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vitrail")
    tell(logging.getLogger("vitrail.test_progress"), "once", progress=True)
    assert (caplog.messages, capsys.readouterr().err) == (["once"], "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_is_drawn_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, now = Terminal(), [0.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    bar = Bar(wanted=True, clock=lambda: now[0])
    for done in range(101):
        bar.show("epoch 1/2", done, 100, f"left {100 - done} s")
        now[0] += 0.1
    bar.hide()
    bar.hide()
    seen = terminal.getvalue()
    assert "epoch 1/2" in seen
    assert "left 97 s" in seen
    assert "left 98 s" not in seen  # too soon after the first
    assert seen.endswith("\x1b[2K")  # the line is cleared


def test_a_pipe_gets_no_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = Bar(wanted=True)
    bar.show("epoch 1/2", 1, 2)
    bar.hide()
    assert capsys.readouterr() == ("", "")


def test_a_work_in_a_pipe_tells_after_a_silence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vitrail")
    now = [0.0]
    work = Work("Evaluating", 100, progress=False, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 2
        work.advance()
    work.end()
    assert caplog.messages == [
        "Evaluating: 10 of 100  left 3 min",
        "Evaluating: 40 of 100  left 2 min",
        "Evaluating: 70 of 100  left 60 s",
    ]


def test_quick_work_and_work_without_end_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vitrail")
    assert list(track([], "Nothing", progress=True)) == []
    assert list(track("abc", "Letters", progress=True)) == ["a", "b", "c"]
    assert list(track(iter("abc"), "Letters", progress=True, total=3)) == ["a", "b", "c"]
    work = Work("Too much", 2, progress=False, clock=lambda: 0.0)
    work.advance(5)
    work.advance(0)
    assert caplog.messages == []


def test_a_work_in_a_terminal_is_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, now = Terminal(), [0.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    work = Work("Bench", 4, progress=True, clock=lambda: now[0])
    now[0] = 30
    work.advance(1, "loading [bold]")
    work.end()
    assert "left 2 min (loading [bold])" in terminal.getvalue()


def test_works_of_a_whole_tell_the_time_of_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vitrail")
    now = [0.0]

    def work(title: str, steps: int, seconds: float) -> str:
        before = len(caplog.messages)
        one = Work(title, steps, progress=False, clock=lambda: now[0])
        for _ in range(steps):
            now[0] += seconds
            one.advance()
        one.end()
        told = caplog.messages[before:]
        return told[0] if told else ""

    def clock() -> float:
        return now[0]

    stages = [("Calibrating", 1.0), ("Never", 100.0), ("Rounding", 3.0), ("Evaluating", 1.0), ("Evaluating", 1.0)]
    with Whole(stages[:1] + stages[2:], clock=clock):
        # 40 s for one part; five more parts follow
        assert work("Calibrating", 10, 4.0) == "Calibrating: 5 of 10  left 4 min in all"
        now[0] += 20  # untold work counts for the calibration
        with Whole([("Rounding", 1.0)], clock=clock):  # the outer one counts
            # 60 s for three parts, after 60 s for one part: 30 s a part; two parts follow
            assert work("Rounding", 3, 20.0) == "Rounding: 1 of 3  left 2 min in all"
        assert work("Something else", 2, 20.0) == "Something else: 1 of 2  left 20 s"
    with Whole(stages, clock=clock):
        assert work("Evaluating", 2, 30.0) == "Evaluating: 1 of 2  left 2 min in all"
        assert work("Evaluating", 2, 30.0) == "Evaluating: 1 of 2  left 30 s in all"
        assert work("Evaluating", 2, 30.0) == "Evaluating: 1 of 2  left 30 s"
    assert work("Evaluating", 2, 30.0) == "Evaluating: 1 of 2  left 30 s"
