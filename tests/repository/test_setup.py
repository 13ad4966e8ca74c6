"""What `make` says on a machine that lacks something, and when it leaves the environment alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("make", "sh", "awk", "cat", "cmp", "echo", "env")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path):
    """A folder with what the set-up reads, and a PATH with the few tools it needs and no compiler."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    return tmp_path


def make(checkout, *arguments):
    environment = {"PATH": str(checkout / "bin"), "HOME": str(checkout)}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def python(checkout, name, script):
    path = checkout / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"PYTHON={name}"


def test_a_missing_compiler_is_said_with_what_to_install(checkout):
    result = make(checkout, "setup", python(checkout, "python3", f'exec {sys.executable} "$@"'))
    assert result.returncode != 0 and not (checkout / ".venv").exists()
    for words in ("lacks a C compiler", "sudo apt-get install build-essential", "sudo dnf install gcc", "xcode-select"):
        assert words in result.stderr


def test_a_missing_python_is_said(checkout):
    result = make(checkout, "setup", "PYTHON=python9")
    assert result.returncode != 0 and "'python9' was not found; name a Python" in result.stderr


@pytest.mark.parametrize("version", ["(3, 10)", "(3, 14)"])
def test_an_unfit_python_is_said(checkout, version):
    # Turns `python -c CODE` into the same code where sys.version_info says something else.
    pretend = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    asked = python(checkout, "python3", f'exec {sys.executable} -c "{pretend}" "$2"')
    result = make(checkout, "setup", asked)
    assert result.returncode != 0
    found = version.strip("()").replace(", ", ".")
    assert "Python 3.11 to 3.13 is needed" in result.stderr and f"is {found}" in result.stderr


def installed(checkout):
    """Leave a .venv as a finished set-up does, with a Python that notes when it is asked to install something."""
    log = checkout / "log"
    bin_ = checkout / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "python").write_text(f'#!/bin/sh\n[ "$1" = -V ] && exec {sys.executable} -V\necho "$@" >> {log}\n')
    (bin_ / "python").chmod(0o755)
    texts = [(checkout / name).read_text() for name in ("pyproject.toml", "requirements.lock")]
    (checkout / ".venv" / "installed-from").write_text("".join(texts))
    return log


def test_a_finished_environment_is_used_as_it_is(checkout):
    log = installed(checkout)
    result = make(checkout, "reproduce", "PROFILE=study", "ONLY=03 05", "PARAMS=SEED=2 DATA=real")
    assert result.returncode == 0, result.stderr
    assert log.read_text() == "-m micro_lib reproduce --profile study --only 03 05 -p SEED=2 DATA=real\n"
    assert make(checkout, "test").returncode == 0
    assert log.read_text().splitlines()[-1].startswith("-m pytest -n ")


def test_a_changed_lock_sets_up_again(checkout):
    installed(checkout)
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    result = make(checkout, "test", python(checkout, "python3", f'exec {sys.executable} "$@"'))
    assert "lacks a C compiler" in result.stderr, "the set-up began"


def test_a_python_that_is_named_wins_over_the_one_of_the_environment(checkout):
    log = installed(checkout)
    other, begun = "echo Python 3.99.0", checkout / "begun"
    asked = python(checkout, "other", f'[ "$1" = -V ] && {other} && exit\necho > {begun}\nexit 1')
    assert make(checkout, "test").returncode == 0 and not begun.exists()
    assert make(checkout, "test", asked).returncode != 0 and begun.exists()
    lines = log.read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("-m pytest "), "the tests did not run with the wrong Python"


def test_lock_holds_the_installer_with_its_hashes():
    block = subprocess.run(
        ["awk", "/^[^ #]/ { wanted = /^uv==/ } wanted", "requirements.lock"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert block.startswith("uv==") and block.count("==") == 1 and block.count("--hash=sha256:") > 5
