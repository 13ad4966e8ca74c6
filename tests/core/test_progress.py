import sys

import pytest

from micro_lib.core.progress import progress


@pytest.mark.parametrize(
    ("terminal", "disable", "shown"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_bars_show_on_a_terminal_unless_they_are_disabled(monkeypatch, capsys, terminal, disable, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert list(progress(range(3), desc="counting", disable=disable)) == [0, 1, 2]
    assert ("counting" in capsys.readouterr().err) == shown
