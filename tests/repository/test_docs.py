"""The pages of the package's functions are built without a warning; what is said to be short is short."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_has_a_page(tmp_path):
    command = [sys.executable, "-W", "error::UserWarning", "-m", "pdoc", "--docformat", "numpy", "-o", str(tmp_path)]
    done = subprocess.run([*command, "micro_lib"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "warn" not in done.stderr.lower(), done.stderr[-2000:]
    modules = [p.relative_to(ROOT) for p in (ROOT / "micro_lib").rglob("*.py") if not p.stem.startswith("__")]
    missing = [str(m) for m in modules if not (tmp_path / m.with_suffix(".html")).is_file()]
    assert modules and not missing
    page = (tmp_path / "micro_lib" / "analysis" / "metrics.html").read_text(encoding="utf-8")
    assert "<h6" in page and "n_classes" in page, "numpydoc sections are not rendered as such"


@pytest.mark.parametrize("what", ["method", "pack", "scenario"])
def test_another_one_is_added_in_under_40_lines(what):
    text = (ROOT / "tests" / "extending" / f"test_new_{what}.py").read_text("utf-8")
    _, added, _ = text.split("\n# ---- ")
    assert 5 < len(added.splitlines()) < 40
