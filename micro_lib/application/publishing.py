"""What is committed of a run: pictures, tables, claims, executed notebooks, and what the README says of them."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat
import pandas as pd

from micro_lib.application.fingerprint import digest
from micro_lib.application.runner import (
    Notebook,
    RunnerError,
    build_folder,
    collect_claims,
    discover,
    known_profile,
    state_of,
)
from micro_lib.application.tables import with_claims, with_section, with_stored
from micro_lib.core.runs import atomic_path, read_table, repository_root, write_table

EXECUTED_AT = "quick"  # notebooks are committed as this profile leaves them
MAX_FIGURE_BYTES = 1_000_000  # a larger picture does not belong into git
TIMES_MARKS = ("<!-- times, written by `make publish` -->", "<!-- end of times -->")


def publish(*, profile: str = "", folder: Path | None = None, build: Path | None = None, to: Path | None = None) -> int:
    """Copy what is to be committed from the build folder: pictures to ``figures/``, tables to ``figures/tables/``.

    Only files that a finished notebook wrote directly into its OUT folder in its last run are taken; what must not be
    committed, such as pictures of data without a licence, belongs into a sub-folder of OUT. Of a table with a
    ``profile`` column the stored rows of other profiles are kept, of the claims what `tables.with_stored` keeps.
    Notebooks that ran at `EXECUTED_AT` with no other parameters take over the outputs of that run. The sections of
    claims and times of the README beside `to` are written anew.

    Parameters
    ----------
    profile, folder, build
        As for `reproduce`.
    to : pathlib.Path
        By default ``figures/`` of the checkout.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    RunnerError
        If the profile is smoke, two notebooks wrote a file of the same name, a picture is too large for git, or a
        notebook was changed since it ran.
    """
    profile = known_profile(profile)
    if profile == "smoke":
        raise RunnerError("smoke results are made to be quick, not to be published; choose another profile")
    place, to = build_folder(profile, build), Path(to or repository_root() / "figures")
    known = discover(folder or repository_root() / "notebooks")
    files, notebooks = _publishable(known, place), _executed(known, place) if profile == EXECUTED_AT else {}
    for path, notebook in notebooks.items():
        with atomic_path(path) as temporary:
            nbformat.write(notebook, temporary)
    for path in files:
        if path.suffix == ".png":
            with atomic_path(to / path.name) as temporary:
                shutil.copyfile(path, temporary)
        else:
            table = read_table(path)
            _publish_table(table, to / "tables" / path.name, ("profile",) if "profile" in table.columns else ())
    claims, times = collect_claims(known, place), place / "tables" / "notebooks.csv"
    write_table(with_stored(claims, to / "tables" / "claims.csv"), to / "tables" / "claims.csv")
    if times.is_file():
        runs = read_table(times)
        _publish_table(runs[runs["status"] == "done"], to / "tables" / "notebooks.csv", ("notebook", "profile"))
    _publish_readme(to.parent / "README.md", to / "tables")
    print(f"{len(notebooks)} notebooks, {len(files)} files, the claims and the times of {profile} runs copied to {to}")
    return 0


def _publishable(known: Iterable[Notebook], place: Path) -> list[Path]:
    files = {}
    for notebook in known:
        state = state_of(notebook.name, place)
        for path in (place / name for name in state.get("files", ()) if state["status"] == "done"):
            if path.parent.name != notebook.name or path.suffix not in {".png", ".csv"} or path.name == "claims.csv":
                continue
            if path.name in files:
                raise RunnerError(f"{path} and {files[path.name]} have the same name; rename one")
            if path.suffix == ".png" and path.stat().st_size > MAX_FIGURE_BYTES:
                raise RunnerError(
                    f"{path} has {path.stat().st_size} bytes, more than {MAX_FIGURE_BYTES}; lower its dpi"
                )
            files[path.name] = path
    return list(files.values())


def _publish_table(new: pd.DataFrame, path: Path, key: Sequence[str]) -> None:
    """Write a table, keeping the stored rows that equal no new row in the columns of the key, if it has any."""
    if path.is_file() and key and set(key) <= set((stored := read_table(path)).columns):
        columns = list(key)
        replaced = pd.MultiIndex.from_frame(stored[columns]).isin(pd.MultiIndex.from_frame(new[columns]))
        if not replaced.all():
            new = pd.concat([stored[~replaced], new], ignore_index=True).sort_values(columns, kind="stable")
    write_table(new, path)


def _publish_readme(readme: Path, tables: Path) -> None:
    if not readme.is_file():
        return
    text = with_claims(readme.read_text(encoding="utf-8"), read_table(tables / "claims.csv"))
    if (tables / "notebooks.csv").is_file():
        text = with_section(text, TIMES_MARKS, times_markdown(read_table(tables / "notebooks.csv")))
    with atomic_path(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")


def times_markdown(runs: pd.DataFrame) -> str:
    """Return time and memory of notebooks at `EXECUTED_AT` as a Markdown table with one row of each.

    Parameters
    ----------
    runs : pandas.DataFrame
        notebook, profile, seconds and peak_mib of finished runs.
    """
    runs = runs[runs["profile"] == EXECUTED_AT].sort_values("notebook")
    seconds = [f"{s:.0f} s" if s < 100 else f"{s / 60:.0f} min" for s in runs["seconds"]]
    rows = [runs["notebook"].str[:2], seconds, [f"{mib / 1024:.1f} GB" for mib in runs["peak_mib"]]]
    lines = [" | ".join([name, *row]) for name, row in zip(("notebook", "time", "peak memory"), rows, strict=True)]
    return "\n".join(f"| {line} |" for line in (lines[0], " | ".join(["---"] * (len(runs) + 1)), *lines[1:]))


def _executed(known: Iterable[Notebook], place: Path) -> dict[Path, nbformat.NotebookNode]:
    """The notebooks with the outputs of their last run, by path; those run with parameters of their own are left."""
    found = {}
    for notebook in known:
        state, copy = state_of(notebook.name, place), place / "notebooks" / notebook.path.name
        if state.get("status") == "done" and set(state["parameters"]) <= {"PROFILE", "OUT"}:
            found[notebook.path] = _with_outputs(notebook.path, nbformat.read(copy, as_version=4))
    return found


def _with_outputs(path: Path, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook at `path` with the outputs of its executed copy, but for warnings and progress bars."""
    notebook = nbformat.read(path, as_version=4)
    ran = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", ())]
    if [cell.source for cell in ran] != [cell.source for cell in notebook.cells]:
        raise RunnerError(f"{path} was changed since it ran; run `make reproduce ONLY={path.stem[:2]}` again")
    code = [(cell, other) for cell, other in zip(notebook.cells, ran, strict=True) if cell.cell_type == "code"]
    for number, (cell, other) in enumerate(code, 1):
        cell.outputs = [output for output in other.outputs if not _is_passing(output)]
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
    executed_as = {"executed_at": EXECUTED_AT, "executed_code": code_digest(notebook)}
    notebook.metadata["micro_lib"] = {**notebook.metadata.get("micro_lib", {}), **executed_as}
    return notebook


def code_digest(notebook: nbformat.NotebookNode) -> str:
    """Return a hash of a notebook's code: stored with its outputs, it tells whether they are of another."""
    return digest([cell.source for cell in notebook.cells if cell.cell_type == "code"])


def _is_passing(output: nbformat.NotebookNode) -> bool:
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get("data", ())
