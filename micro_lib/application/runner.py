"""Run the notebooks in order through papermill, skip what is up to date, and gather their claims."""

import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import nbformat
import pandas as pd
import papermill
import psutil
from filelock import FileLock, Timeout
from ipykernel.kernelspec import get_kernel_dict
from tqdm import tqdm

import micro_lib
from micro_lib.application.fingerprint import digest, downloaded, fingerprint
from micro_lib.application.tables import claims_text, gather_claims, known_claims, show
from micro_lib.core.profiles import resolve
from micro_lib.core.runs import (
    build_dir,
    environment,
    merge_rows,
    provenance,
    read_json,
    repository_root,
    write_json,
    write_table,
)

ON_REQUEST = ("11", "12")  # these run only when named
# The longest that one cell may take, seconds; None: as long as it needs.
CELL_TIMEOUT_S = {"smoke": 600, "quick": 3600, "study": 2 * 86400, "paper": None}


class RunnerError(Exception):
    """The run cannot start as it was asked for; the message says why and what to do."""


@dataclass(frozen=True)
class Notebook:
    """A notebook to run."""

    path: Path
    needs: tuple[str, ...]  # names of notebooks whose results it reads
    reads_claims: bool = False  # of all others, built or stored

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return self.path.stem

    @property
    def number(self) -> str:
        """The two digits that the name starts with."""
        return self.name[:2]


def reproduce(
    *,
    profile: str = "",
    only: Sequence[str] = (),
    parameters: Mapping[str, object] | None = None,
    folder: Path | None = None,
    build: Path | None = None,
) -> int:
    """Run notebooks in order; leave copies, figures, tables and the claims table in the build folder.

    A notebook is skipped when its source, its parameters, the data, the parsed source of the `micro_lib` modules it
    imports and the package versions are those of its last finished run. One that fails is named, and only those that
    need it are held back.

    Parameters
    ----------
    profile : str
        As for `micro_lib.core.profiles.resolve`; other profiles than ``quick`` have a build folder of their own.
    only : sequence of str
        Numbers or names of notebooks; none means all but those of `ON_REQUEST`.
    parameters : mapping
        Values for the notebooks' parameters, other than PROFILE and OUT.
    folder, build : pathlib.Path
        Where the notebooks are and where results go; by default ``notebooks/`` and ``build/`` of the checkout.

    Returns
    -------
    int
        Exit code: 0 if every selected notebook is up to date at the end, else 1.

    Raises
    ------
    RunnerError
        If a notebook, a profile or a parameter is unknown, or another run uses the same build folder.
    """
    profile, parameters = known_profile(profile), dict(parameters or {})
    known = discover(folder or repository_root() / "notebooks")
    notebooks = _select(known, only)
    _check_parameters(notebooks, parameters)
    place = build_folder(profile, build)
    place.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place / ".runner.lock", timeout=0), _kernel_environment(place):
            rows = _run_all(notebooks, {**parameters, "PROFILE": profile}, place)
    except Timeout:
        raise RunnerError(f"another run is using {place}; wait for it to end") from None
    return _report(rows, known, place)


def known_profile(profile: str) -> str:
    """Return the profile to run, as `micro_lib.core.profiles.resolve`; RunnerError for an unknown one."""
    try:
        return resolve(profile)
    except ValueError as error:
        raise RunnerError(str(error)) from None


def build_folder(profile: str, build: Path | None = None) -> Path:
    """Return where a profile's results go, so that a quick run never overwrites those of a long one."""
    build = Path(build or build_dir()).resolve()
    return build if profile == "quick" else build / profile


def discover(folder: Path) -> list[Notebook]:
    """Return the numbered notebooks of a folder in the order in which they run.

    Parameters
    ----------
    folder : pathlib.Path
        Holds ``NN_name.ipynb`` files; each may name others it needs in its metadata, ``micro_lib: {needs: [...]}``,
        and say there that it ``reads_claims``, so that it runs again when a claim of the others changes.

    Returns
    -------
    list of Notebook
        By number.

    Raises
    ------
    RunnerError
        If a notebook cannot be read or needs one that is not there or comes later.
    """
    notebooks = []
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        try:
            metadata = nbformat.read(path, as_version=4).metadata.get("micro_lib", {})
        except Exception as error:
            raise RunnerError(f"{path} is not a readable notebook: {error}") from error
        needs = tuple(metadata.get("needs", ()))
        if unmet := [name for name in needs if name not in {notebook.name for notebook in notebooks}]:
            raise RunnerError(f"{path.name} needs {unmet}, which {folder} does not hold before it")
        notebooks.append(Notebook(path, needs, bool(metadata.get("reads_claims"))))
    return notebooks


def _select(known: list[Notebook], only: Sequence[str]) -> list[Notebook]:
    wanted = [part for item in only for part in re.split(r"[\s,]+", item) if part]
    if unknown := [item for item in wanted if not any(item in (n.number, n.name) for n in known)]:
        raise RunnerError(f"no notebook {', '.join(unknown)}; there are {', '.join(n.name for n in known) or 'none'}")
    if wanted:
        return [notebook for notebook in known if {notebook.number, notebook.name} & set(wanted)]
    return [notebook for notebook in known if notebook.number not in ON_REQUEST]


def _check_parameters(notebooks: list[Notebook], parameters: Mapping) -> None:
    if reserved := {"PROFILE", "OUT"} & set(parameters):
        raise RunnerError(f"{', '.join(sorted(reserved))} is set by the runner; choose the profile with --profile")
    for notebook in notebooks:
        # papermill itself only warns of an unknown name, and then runs with the default.
        known = papermill.inspect_notebook(notebook.path)
        if unknown := [name for name in parameters if name not in known]:
            raise RunnerError(
                f"{notebook.path.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}. "
                "Name the notebooks that the parameter is for with --only"
            )


def _kernel_environment(place: Path):
    """Make kernels run this very Python and package, and send what `out_dir` names to the build folder."""
    # A kernel called python3 that the user once registered would run the notebooks in another environment;
    # JUPYTER_PATH comes before all other places.
    quiet = ["--IPKernelApp.log_level=50"]  # else each kernel warns that its loop-back socket is not encrypted
    kernel = get_kernel_dict(extra_arguments=quiet)
    write_json(place / ".jupyter" / "kernels" / "python3" / "kernel.json", kernel)
    first = {"JUPYTER_PATH": place / ".jupyter", "PYTHONPATH": Path(micro_lib.__file__).parents[1]}
    paths = {name: os.pathsep.join(filter(None, [str(path), os.environ.get(name)])) for name, path in first.items()}
    return environment(MICRO_OUT=str(place), **paths)


# Running


def _run_all(notebooks: list[Notebook], parameters: dict, place: Path) -> list[dict]:
    rows = []
    bar = tqdm(notebooks, unit="notebook", disable=None)
    for notebook in bar:
        bar.set_description(notebook.name)
        row = _run_one(notebook, parameters, place)
        rows.append(row)
        time_taken = f"{row['seconds']:7.1f} s  {row['peak_mib']:7.0f} MiB" if row["seconds"] else ""
        bar.write(f"{notebook.name:30s} {row['status']:11s} {time_taken} {row['error']}".rstrip())
    return rows


def _run_one(notebook: Notebook, parameters: dict, place: Path) -> dict:
    row = {"notebook": notebook.name, "profile": parameters["PROFILE"], "seconds": 0.0, "peak_mib": 0.0, "error": ""}
    states = {name: state_of(name, place) for name in notebook.needs}
    if missing := [name for name, state in states.items() if state.get("status") != "done"]:
        return {
            **row,
            "status": "held back",
            "error": f"needs {', '.join(missing)}, which has not finished; run it first",
        }
    parts = fingerprint(notebook.path, parameters, {name: digest(state["parts"]) for name, state in states.items()})
    if notebook.reads_claims:
        parts["claims"] = digest(known_claims(place, without=notebook.name).to_csv(index=False))
    state = state_of(notebook.name, place)
    if state.get("status") == "done" and state["parts"] == parts and all((place / f).is_file() for f in state["files"]):
        return {**row, "status": "up to date", "seconds": state["seconds"], "peak_mib": state["peak_mib"]}
    return {**row, **_execute(notebook, parameters, parts, place)}


def _execute(notebook: Notebook, parameters: dict, parts: dict, place: Path) -> dict:
    state_file, out = _state_file(notebook.name, place), place / notebook.name
    # Without its state a run that is killed counts as never done.
    state_file.unlink(missing_ok=True)
    (out / "claims.csv").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    copy = place / "notebooks" / notebook.path.name
    copy.parent.mkdir(exist_ok=True)
    started = time.time()
    with _PeakMemory() as memory:
        error = _papermill(notebook, copy, {**parameters, "OUT": str(out)})
    files = [copy, *(path for path in sorted(out.iterdir()) if path.is_file() and path.stat().st_mtime >= started - 1)]
    state = {
        "status": "failed" if error else "done",
        "error": error,
        "seconds": round(time.time() - started, 2),
        "peak_mib": round(memory.peak_mib, 1),
        "parameters": parameters,
        "parts": {**parts, **downloaded(parts)},
        "files": [str(path.relative_to(place)) for path in files],
    }
    write_json(state_file, state)
    return {name: state[name] for name in ("status", "error", "seconds", "peak_mib")}


def _papermill(notebook: Notebook, copy: Path, parameters: dict) -> str:
    try:
        papermill.execute_notebook(
            notebook.path,
            copy,
            parameters=parameters,
            kernel_name="python3",
            cwd=notebook.path.parent,
            execution_timeout=CELL_TIMEOUT_S[parameters["PROFILE"]],
            progress_bar={"leave": False, "disable": None, "desc": f"  {notebook.name}"},
        )
    except papermill.PapermillExecutionError as error:
        return f"In [{error.exec_count}]: {error.ename}: {error.evalue}".splitlines()[0]
    except Exception as error:  # a dead kernel, a timeout, a full disk: the other notebooks still run
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


class _PeakMemory(Thread):
    """Sample the resident memory of this process's children, kernels and their workers, until the block ends."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak_mib = 0.0
        self._ended = Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()

    def run(self):
        while not self._ended.wait(0.2):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it ended meanwhile
                    continue
            self.peak_mib = max(self.peak_mib, total / 2**20)


def _state_file(name: str, place: Path) -> Path:
    return place / "state" / f"{name}.json"


def state_of(name: str, place: Path) -> dict:
    """Return what is known of a notebook's last run in a build folder: status, files, parameters; {} for none."""
    path = _state_file(name, place)
    return read_json(path) if path.is_file() else {}


# Reporting


def _report(rows: list[dict], known: list[Notebook], place: Path) -> int:
    columns = ["notebook", "profile", "status", "seconds", "peak_mib", "error"]
    runs = pd.DataFrame(rows, columns=columns)
    print(f"\n{show(runs).to_string(index=False, max_colwidth=70)}" if rows else "No notebook to run.")
    if ran := [row for row in rows if row["status"] in ("done", "failed")]:
        ran = [{**row, **_provenance(row)} for row in ran]
        merge_rows(place / "tables" / "notebooks.csv", pd.DataFrame(ran), ["notebook", "profile"])
    print(f"\n{claims_text(collect_claims(known, place))}\n\nResults: {place}")
    failed = [row for row in rows if row["status"] in ("failed", "held back")]
    for row in failed:
        copy = place / "notebooks" / f"{row['notebook']}.ipynb"
        kept = f"; executed copy: {copy}" if row["status"] == "failed" else ""
        print(f"{row['status'].upper()}: {row['notebook']}: {row['error']}{kept}", file=sys.stderr)
    return 1 if failed else 0


def _provenance(row: dict) -> dict:
    source = provenance(profile=row["profile"], seed=0, device=f"{os.cpu_count()} CPU cores", notebook=row["notebook"])
    return {name: source[name] for name in ("device", "versions", "commit", "dirty")}


def collect_claims(known: Iterable[Notebook], place: Path) -> pd.DataFrame:
    """Gather the claims of every finished notebook and keep them as ``tables/claims.csv`` of the build folder.

    Parameters
    ----------
    known : iterable of Notebook
        From `discover`.
    place : pathlib.Path
        From `build_folder`.

    Returns
    -------
    pandas.DataFrame
        Columns `micro_lib.application.tables.COLUMNS`.
    """
    done = [notebook.name for notebook in known if state_of(notebook.name, place).get("status") == "done"]
    claims = gather_claims(path for name in done if (path := place / name / "claims.csv").is_file())
    write_table(claims, place / "tables" / "claims.csv")
    return claims
