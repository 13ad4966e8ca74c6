import sys
import time

import pytest

from micro_lib.core.progress import Stopwatch, progress


@pytest.mark.parametrize(
    ("terminal", "disable", "shown"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_bars_show_on_a_terminal_unless_they_are_disabled(monkeypatch, capsys, terminal, disable, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert list(progress(range(3), desc="counting", disable=disable)) == [0, 1, 2]
    assert ("counting" in capsys.readouterr().err) == shown


def test_waiting_passes_time_and_computes_none():
    watch = Stopwatch()
    time.sleep(0.1)
    waited = watch.read("wait_")
    assert waited["wait_seconds"] >= 0.1 > 2 * waited["wait_process_seconds"] >= 0
    while time.process_time() < watch.started[1] + 0.1:
        pass
    assert 0.1 <= watch.read()["process_seconds"] < watch.read()["seconds"]
