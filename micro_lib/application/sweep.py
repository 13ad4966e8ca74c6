"""Run an experiment for many configurations and seeds, killed and resumed at will, into one stored table."""

import hashlib
import importlib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import submitit
from filelock import FileLock
from tqdm import tqdm

from micro_lib.application.tables import tables_dir
from micro_lib.core.profiles import resolve, settings
from micro_lib.core.runs import (
    build_dir,
    environment,
    merge_rows,
    provenance,
    read_json,
    read_table,
    write_json,
    write_table,
)

# Name of a sweep -> module of the experiment: run(configuration, seed, profile, out), which returns a flat row, and
# CONFIGURATIONS, name -> configuration.
SWEEPS = {
    "adaptation": "micro_lib.training.adaptation",
    "adaptive": "micro_lib.training.adaptive",
    "cracks": "micro_lib.training.cracks",
    "grains": "micro_lib.training.grains",
    "joint": "micro_lib.training.joint",
    "source": "micro_lib.training.source",
}
KEYS = ("experiment", "configuration", "seed", "profile")
# Each worker has one thread: two workers on two cores beat one worker with two threads, which collapse under load.
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_NO_LIMIT_MIN = 60 * 24 * 30
_POLL_S = 0.2


def run_named(
    name: str,
    *,
    profile: str = "",
    only: Sequence[str] = (),
    changes: Mapping | None = None,
    seeds: Sequence[int] = (),
    workers: int = 2,
    collect: Callable[[str, Path, Path], None] | None = None,
) -> int:
    """Run a sweep of `SWEEPS` into ``figures/tables/<name>_runs.csv``, and gather what else it left.

    Parameters
    ----------
    name : str
        A key of `SWEEPS`; also the experiment whose seeds are taken from the profiles.
    profile : str
        As for `micro_lib.core.profiles.resolve`.
    only : sequence of str
        Names of configurations; none means all.
    changes : mapping
        Keys that are set in every configuration.
    seeds : sequence of int
        None means those of the profile.
    workers : int
        Number of processes.
    collect : callable, optional
        (profile, folder of the sweep, folder of the tables), called when the sweep has ended: what its runs left in
        their folders beside rows and images becomes tables.

    Returns
    -------
    int
        Exit code: 0 if every run is done, 1 if some failed.

    Raises
    ------
    ValueError
        If the sweep, the profile or a configuration is unknown.
    """
    if name not in SWEEPS:
        raise ValueError(f"no sweep {name!r}; there are {', '.join(sorted(SWEEPS))}")
    profile, module = resolve(profile), SWEEPS[name]
    known = importlib.import_module(module).CONFIGURATIONS
    if unknown := [wanted for wanted in only if wanted not in known]:
        raise ValueError(f"no configuration {', '.join(unknown)}; there are {', '.join(known)}")
    configurations = [{**known[wanted], **(changes or {})} for wanted in only or known]
    seeds = seeds or settings(name, profile)["seeds"]
    folder = build_dir() / "sweeps" / name
    tables = tables_dir() if profile != "smoke" else folder
    done = run_sweep(
        f"{module}:run",
        configurations,
        seeds,
        profile=profile,
        folder=folder,
        table=tables / f"{name}_runs.csv",
        workers=workers,
    )
    if collect:
        collect(profile, folder, tables)
    return 0 if len(done) == len(configurations) * len(seeds) else 1


def run_sweep(
    experiment: str,
    configurations: Sequence[Mapping],
    seeds: Sequence[int],
    *,
    profile: str,
    folder: str | Path,
    table: str | Path,
    workers: int = 2,
) -> pd.DataFrame:
    """Run every configuration with every seed that is not done yet, and store the rows as they come.

    Whatever is killed, this process or a worker, the next call with the same arguments goes on: finished runs are
    kept, others are run again, failed ones too. A run whose row is in the stored table is finished, so a fresh clone
    goes on from the committed rows; delete a row there and its folder here to run it again.

    Parameters
    ----------
    experiment : str
        ``"module:function"``, called as ``function(configuration, seed, profile, out)`` with a folder of the run's own,
        where it may keep checkpoints to go on from; returns a flat mapping of numbers and texts.
    configurations : sequence of mapping
        Plain values only, they are stored as JSON.
    seeds : sequence of int
        Every configuration runs with each of them.
    profile : str
        As for `micro_lib.core.profiles.resolve`.
    folder : str or pathlib.Path
        Holds ``manifest_<profile>.csv``, one row a run, the logs, and ``runs/<key>/`` with ``done.json`` or
        ``failed.json``.
    table : str or pathlib.Path
        CSV table the rows are merged into; a row of the same `KEYS` is replaced. What a run leaves as ``images.csv``,
        one row an image, is kept beside it: ``<name>_runs.csv`` and ``<name>_images.csv``.
    workers : int
        Processes at a time, one thread each.

    Returns
    -------
    pandas.DataFrame
        The rows of this sweep that are done; fewer than asked for where runs failed, which are printed.
    """
    folder = Path(folder)
    manifest = write_manifest(experiment, configurations, seeds, profile=resolve(profile), folder=folder)
    records = manifest.to_dict("records")
    for record in records:
        (_run_folder(folder, record) / "failed.json").unlink(missing_ok=True)
    missing = [r for r in records if not (_collect(folder, r, table) or _is_stored(r, table))]
    with tqdm(total=len(records), initial=len(records) - len(missing), unit="run", disable=None) as bar:
        for record in _finished(folder, missing, workers):
            if not _collect(folder, record, table):
                error = read_json(_run_folder(folder, record) / "failed.json")["error"]
                bar.write(f"failed: {record['configuration']} seed {record['seed']}: {error}")
            bar.update()
    return _summary(folder, records, table)


def write_manifest(
    experiment: str, configurations: Sequence[Mapping], seeds: Sequence[int], *, profile: str, folder: Path
) -> pd.DataFrame:
    """Write one row a run, seeds outermost so that all arms of a comparison stay equally far.

    Parameters
    ----------
    experiment, configurations, seeds, profile, folder
        As for `run_sweep`.

    Returns
    -------
    pandas.DataFrame
        Columns key (16 hexadecimal digits of the SHA-256 of the others), experiment, configuration (JSON, keys
        sorted), seed, profile.

    Raises
    ------
    ValueError
        If a run is asked for twice.
    """
    rows = []
    for seed in seeds:
        for configuration in configurations:
            run = (experiment, json.dumps(configuration, sort_keys=True), int(seed), profile)
            rows.append((hashlib.sha256(json.dumps(run).encode()).hexdigest()[:16], *run))
    manifest = pd.DataFrame(rows, columns=["key", *KEYS])
    if len(twice := manifest[manifest.duplicated("key")]):
        raise ValueError(f"asked for twice: {twice[['configuration', 'seed']].to_dict('records')}")
    write_table(manifest, folder / f"manifest_{profile}.csv")
    return manifest


def run(record: Mapping, folder: str | Path) -> None:
    """Do one run of a manifest, unless it is done; leaves ``done.json`` with its row or ``failed.json``.

    Parameters
    ----------
    record : mapping
        A row of the manifest.
    folder : str or pathlib.Path
        As for `run_sweep`.
    """
    place = _run_folder(Path(folder), record)
    place.mkdir(parents=True, exist_ok=True)
    # A worker may outlive the process that started it; the next one for the same run waits and finds it done.
    with FileLock(place / ".lock"):
        if (place / "done.json").is_file():
            return
        started, source = time.time(), provenance(profile=record["profile"], seed=record["seed"])
        try:
            function, configuration = _function(record["experiment"]), json.loads(record["configuration"])
            row = _flat(function(configuration, record["seed"], record["profile"], place))
        except Exception as error:
            text = traceback.format_exc()
            write_json(place / "failed.json", {"error": f"{type(error).__name__}: {error}", "traceback": text})
            return
        names = {name: record[name] for name in KEYS}
        write_json(place / "done.json", {**names, **source, **row, "seconds": round(time.time() - started, 1)})


def _function(path: str):
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _flat(row: Mapping) -> dict:
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
    if wrong := {name: type(v).__name__ for name, v in plain.items() if not isinstance(v, (str, int, float, bool))}:
        raise TypeError(f"an experiment returns numbers and texts; found {wrong}")
    if taken := set(plain) & set(KEYS):
        raise TypeError(f"an experiment may not return {sorted(taken)}, these name the run")
    return plain


def _run_folder(folder: Path, record: Mapping) -> Path:
    return folder / "runs" / record["key"]


def _collect(folder: Path, record: Mapping, table: str | Path) -> bool:
    """Merge the row and the images of a finished run into the stored tables; tell whether it is finished."""
    place = _run_folder(folder, record)
    if not (place / "done.json").is_file():
        return False
    if (place / "images.csv").is_file():
        images = read_table(place / "images.csv", text=["name"])
        named = pd.DataFrame([{name: record[name] for name in KEYS}]).merge(images, how="cross")
        merge_rows(images_table(table), named, (*KEYS, "split", "name"), whole=KEYS)
    merge_rows(table, pd.DataFrame([read_json(place / "done.json")]), KEYS)  # last: a stored row means all is stored
    return True


def images_table(table: str | Path) -> Path:
    """Return where the scores of every image lie that belong to a table of runs."""
    table = Path(table)
    return table.with_name(f"{table.stem.removesuffix('_runs')}_images.csv")


def _is_stored(record: Mapping, table: str | Path) -> bool:
    return not _stored([record], table).empty


def _stored(records: Sequence[Mapping], table: str | Path) -> pd.DataFrame:
    """Rows of the stored table that belong to the records."""
    if not Path(table).is_file():
        return pd.DataFrame()
    wanted = pd.DataFrame([{name: record[name] for name in KEYS} for record in records])
    return read_table(table).merge(wanted, on=list(KEYS))


def _finished(folder: Path, records: list[dict], workers: int) -> Iterator[dict]:
    """Run records, `workers` at a time, each in a process of its own; yield each when it has ended, however it did."""
    import torch  # here, since each worker imports this module and an experiment may need no torch

    executor = submitit.LocalExecutor(folder / "logs")
    # submitit hides the GPUs from a local job unless told how many it gets, and ends it after two minutes.
    executor.update_parameters(timeout_min=_NO_LIMIT_MIN, gpus_per_node=torch.cuda.device_count())
    waiting, running = list(records), []
    with environment(**dict.fromkeys(_ONE_THREAD, "1")):
        while waiting or running:
            while waiting and len(running) < workers:
                record = waiting.pop(0)
                running.append((executor.submit(run, record, folder), record))
            for job, record in [pair for pair in running if pair[0].done()]:
                running.remove((job, record))
                _note_death(folder, record, job)
                yield record
            time.sleep(_POLL_S)


def _note_death(folder: Path, record: Mapping, job: submitit.Job) -> None:
    place = _run_folder(folder, record)
    if not any((place / name).is_file() for name in ("done.json", "failed.json")):
        error = f"the worker was killed or died; its log is {job.paths.stderr}"
        write_json(place / "failed.json", {"error": error, "traceback": job.stderr() or ""})


def _summary(folder: Path, records: list[dict], table: str | Path) -> pd.DataFrame:
    rows = _stored(records, table)
    print(f"{len(rows)} of {len(records)} runs done")
    if len(rows):
        print(rows.groupby("configuration").size().rename("n").to_string())
        if rows["commit"].nunique() > 1:
            again = f"delete rows in {table} and their folders in {folder / 'runs'} to repeat them"
            print(f"the runs come from {rows['commit'].nunique()} commits; {again}")
    if failed := len(records) - len(rows):
        print(f"{failed} failed, see failed.json in {folder / 'runs'}; the same command tries them again")
    return rows
