"""Run nbval over one notebook in the smoke profile, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SANITIZE = ROOT / "tests" / "notebooks" / "sanitize.cfg"


def environment(out: Path) -> dict[str, str]:
    """Return the environment in which notebooks run in tests: smoke, no real data, results in a temporary folder."""
    kept = {name: value for name, value in os.environ.items() if name not in {"MICRO_DATA", "PYTEST_ADDOPTS"}}
    paths = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    return {**kept, "MICRO_PROFILE": "smoke", "MICRO_OUT": str(out), "PYTHONPATH": paths}


def run(path: Path, out: Path) -> subprocess.CompletedProcess:
    """Execute a notebook and compare the outputs of its checked cells with the stored ones; stop at the first fault.

    Parameters
    ----------
    path : pathlib.Path
        The notebook.
    out : pathlib.Path
        Folder for its results.

    Returns
    -------
    subprocess.CompletedProcess
        Return code 0 if all cells ran and the checked ones agree; stdout names the cell that does not.
    """
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-sanitize-with", str(_SANITIZE)]
    options += ["--nbval-cell-timeout", "600", "--exitfirst", "--override-ini", "addopts=", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(path.parent), str(path)]
    return subprocess.run(command, env=environment(out), cwd=path.parent, capture_output=True, text=True, check=False)
