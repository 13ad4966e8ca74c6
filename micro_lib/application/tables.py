"""The claims table: every published number beside ours, and one way to round what readers see."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from micro_lib.analysis.stats import paired_t, t_interval
from micro_lib.core.profiles import PROFILES, resolve
from micro_lib.core.runs import provenance, read_table, repository_root, write_table

COLUMNS = (
    "claim",  # what is stated, e.g. "boundary mIoU, synthetic training only"
    "paper",  # short name of the paper, e.g. "Trampert 2021"
    "where",  # table, figure or section of it
    "kind",  # one of KINDS, empty where nothing was measured
    "published",  # the published number as printed there, e.g. "0.745 +- 0.015"
    "answers",  # names of the published numbers (application.published) that this answers, empty for a statement
    "ours",  # our number, empty where there is none
    "low",  # ends of our interval, empty where there is none
    "high",
    "level",  # of our interval, e.g. 0.95
    "n",  # how many of `over` there are
    "over",  # what our number and its interval are over, e.g. "runs", "folds", "specimens"
    "unit",  # unit of ours, "1" for a ratio
    "profile",
    "device",
    "notebook",
    "verdict",  # one of VERDICTS
    "why",  # a sentence behind the verdict
    "seeds",  # the seeds that were run, e.g. "1 2 3"
    "versions",
    "commit",
)
SEPARATOR = "; "  # between the names in the column answers
KINDS = ("level", "effect", "statement")  # a number, a difference between arms, words
OF_STATEMENTS = ("holds here", "does not hold here")  # what a paper says without a number
TOO_WIDE = "our interval is too wide to tell; "  # begins the reason of a verdict that more runs might change
MEASURED = ("reproduced", "direction reproduced", "not reproduced", *OF_STATEMENTS)
_OF_CLAIMS = (*COLUMNS[: COLUMNS.index("profile")], "verdict", "why")
NOT_TESTABLE, NOT_RUN = "cannot be tested with open data", "not run here"
VERDICTS = (*MEASURED, NOT_TESTABLE, NOT_RUN)
_SHOWN = ["claim", "paper", "where", "published", "ours", "n", "over", "unit", "profile", "verdict"]


def claim_rows(claims: Iterable[Mapping], *, profile: str, notebook: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Complete a notebook's claims to rows of the claims table.

    Parameters
    ----------
    claims : iterable of mapping
        Each with claim, paper, where, published, verdict, and, where something was measured, kind, ours, n, over, unit
        and, where there is an interval, low, high and level; ``why`` is required where nothing was judged.
    profile, notebook : str
        As for `micro_lib.core.runs.provenance`.
    runs : pandas.DataFrame
        What the claims are judged by, with a column seed; device where something was trained.

    Returns
    -------
    pandas.DataFrame
        One row a claim, columns `COLUMNS`.

    Raises
    ------
    ValueError
        If a claim lacks a field, has an unknown one, or its verdict does not fit what was measured; names the claim.
    """
    device = ", ".join(sorted(runs["device"].dropna().unique())) if "device" in runs else ""
    source = provenance(profile=resolve(profile), seed=0, device=device or "cpu", notebook=notebook)
    shared = {name: source[name] for name in ("profile", "device", "notebook", "versions")}
    shared["commit"] = f"{source['commit']}{'-dirty' if source['dirty'] else ''}"
    shared["seeds"] = " ".join(str(seed) for seed in sorted(runs["seed"].dropna().astype(int).unique()))
    rows = [{**_checked(claim), **shared} for claim in claims]
    names = [row["claim"] for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"claims stated twice in {notebook}: {twice}")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _checked(claim: Mapping) -> dict:
    row = dict.fromkeys(("kind", "answers", "over", "why"), "") | {"n": 0, "unit": "1"}
    row |= dict.fromkeys(("ours", "low", "high", "level"), math.nan) | dict(claim)
    faults = [
        f"{field} is missing"
        for field in ("claim", "paper", "where", "published")
        if not str(row.get(field, "")).strip()
    ]
    faults += [f"unknown field {field!r}" for field in row if field not in _OF_CLAIMS]
    verdict, measured = row.get("verdict"), not math.isnan(row["ours"])
    if verdict not in VERDICTS:
        faults.append(f"verdict {verdict!r} is none of {', '.join(VERDICTS)}")
    elif verdict in MEASURED and not measured:
        faults.append(f"verdict {verdict!r} needs our number")
    elif verdict in MEASURED and (verdict in OF_STATEMENTS) != (row["kind"] == "statement"):
        faults.append(f"verdict {verdict!r} is none of a {row['kind']}")
    elif verdict in OF_STATEMENTS and row["answers"]:
        faults.append(f"verdict {verdict!r} is for statements without a number, and {row['answers']} is one")
    elif verdict not in MEASURED and not row["why"]:
        faults.append(f"verdict {verdict!r} says why")
    elif verdict == NOT_RUN and measured:
        faults.append(f"verdict {verdict!r} takes no number of ours")
    if measured and not (row["n"] >= 1 and row["over"] and row["kind"] in KINDS):
        faults.append("our number needs its n, what that is over, and a kind")
    if math.isnan(row["low"]) != math.isnan(row["high"]) or row["low"] > row["high"]:
        faults.append(f"interval [{row['low']}, {row['high']}] is not one")
    if (0 < row["level"] < 1) == math.isnan(row["low"]):
        faults.append(f"level {row['level']} does not fit interval [{row['low']}, {row['high']}]")
    if faults:
        raise ValueError(f"claim {row.get('claim', '')!r}: {'; '.join(faults)}")
    return row


def write_claims(rows: pd.DataFrame, out: str | Path) -> Path:
    """Write a notebook's claim rows to ``<out>/claims.csv``, from where the runner gathers them.

    Parameters
    ----------
    rows : pandas.DataFrame
        From `claim_rows`.
    out : str or pathlib.Path
        The notebook's output folder.

    Returns
    -------
    pathlib.Path
        The file written.
    """
    path = Path(out) / "claims.csv"
    write_table(rows[list(COLUMNS)], path)
    return path


def gather_claims(files: Iterable[Path]) -> pd.DataFrame:
    """Put the claims of several notebooks into one table.

    Parameters
    ----------
    files : iterable of pathlib.Path
        Files of `write_claims`.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`, in the order of the files.

    Raises
    ------
    ValueError
        If two notebooks state the same claim in the same profile, or a file has other columns; names the files.
    """
    tables = []
    for path in files:
        table = read_table(path)
        if tuple(table.columns) != COLUMNS:
            wanted = f"expected {list(COLUMNS)}; run its notebook again"
            raise ValueError(f"{path} has columns {list(table.columns)}; {wanted}")
        tables.append(table)
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    claims = pd.concat(tables, ignore_index=True)
    if len(twice := claims[claims.duplicated(["claim", "profile"], keep=False)]):
        raise ValueError(f"stated by more than one notebook: {twice[['claim', 'notebook']].to_dict('records')}")
    return claims


def known_claims(place: str | Path, *, without: str = "") -> pd.DataFrame:
    """Return the claims of all notebooks: those of a build, and the stored ones that it leaves, see `with_stored`.

    Parameters
    ----------
    place : str or pathlib.Path
        Holds the output folders of a build's notebooks, each with its ``claims.csv``.
    without : str
        A notebook whose claims are left out.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`.
    """
    files = sorted(Path(place).glob("[0-9][0-9]_*/claims.csv"))  # not those of tables/, which holds them all
    built = gather_claims(path for path in files if path.parent.name != without)
    known = with_stored(built, tables_dir() / "claims.csv")
    return known[known["notebook"] != without].reset_index(drop=True)


def with_stored(built: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Put claims of a build into the stored table, in place of all that their notebooks, or others of them, stated.

    A stored number of a larger profile than any claim in its place stays: a run at ``quick`` hides no study. A claim
    that says why a published number has no answer goes once another notebook answers it.

    Parameters
    ----------
    built : pandas.DataFrame
        Columns `COLUMNS`.
    path : str or pathlib.Path
        The stored table; may be missing.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`, sorted by notebook and profile.
    """
    if not (path := Path(path)).is_file():
        return built
    stored = read_table(path).reindex(columns=list(COLUMNS))
    ranks, theirs = (table["profile"].map(PROFILES.index).astype(float) for table in (stored, built))
    over = pd.DataFrame({key: stored[key].map(theirs.groupby(built[key]).max()) for key in ("notebook", "claim")}).max(
        axis=1
    )
    kept = over.isna() | (stored["ours"].notna() & (ranks > over))
    parts = [table for table in (stored[kept], built) if len(table)]
    claims = pd.concat(parts, ignore_index=True) if parts else built
    claims = claims[~_is_overtaken(claims)]
    return claims.sort_values(["notebook", "profile"], kind="stable", ignore_index=True)


def _is_overtaken(claims: pd.DataFrame) -> np.ndarray:
    """Tell which claims without a number of ours stand for published ones that an earlier, or measuring, notebook has.

    The notebook that gathers what nobody answers is the last one, and may have run before another found the answer.
    """
    answers = claims["answers"].astype(object).fillna("").str.split(SEPARATOR)
    names = claims.assign(name=answers, empty=claims["ours"].isna()).explode("name").query("name != ''")
    names = names.sort_values(["empty", "notebook"], kind="stable")
    first = names.groupby(["paper", "where", "name"])["notebook"].transform("first")
    needed = names.index[~names["empty"] | (names["notebook"] == first)]
    return claims.index.isin(names.index.difference(needed))


def tables_dir() -> Path:
    """Return the folder of the stored tables."""
    return repository_root() / "figures" / "tables"


def stored_rows(table: str, profile: str, columns: Sequence[str] = (), folder: str | Path = "") -> pd.DataFrame:
    """Return the stored rows of one profile; none, but columns, without the table.

    Parameters
    ----------
    table : str
        File name, e.g. ``"grains_runs.csv"``.
    profile : str
        Usually ``"study"``.
    columns : sequence of str
        Of the empty table, beside profile.
    folder : str or pathlib.Path
        Where the table lies; ``""`` is `tables_dir`.
    """
    path = Path(folder or tables_dir()) / table
    rows = read_table(path) if path.is_file() else pd.DataFrame(columns=["profile", *columns])
    return rows[rows["profile"] == profile].reset_index(drop=True)


def stored_sweep(
    sweep: str,
    profile: str,
    named: Callable[[str], Mapping],
    columns: Sequence[str] = (),
    folder: str | Path = "",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the stored runs of a sweep and what they left an image; empty, but columns, where nothing is stored.

    Parameters
    ----------
    sweep : str
        Its name, which begins those of its tables, ``<sweep>_runs.csv`` and ``<sweep>_images.csv``.
    profile, folder
        As for `stored_rows`.
    named : callable
        Turns a stored configuration (JSON) into columns of both tables, e.g. its arm.
    columns : sequence of str
        Of empty tables, beside the configuration.
    """
    found = []
    for kind in ("runs", "images"):
        rows = stored_rows(f"{sweep}_{kind}.csv", profile, ("configuration", *columns), folder)
        if rows.empty:  # of this profile, in a table of others
            rows = rows.reindex(columns=list(dict.fromkeys([*rows, *columns])))
        names = {text: named(text) for text in rows["configuration"].unique()}
        found.append(rows.assign(**pd.DataFrame([names[text] for text in rows["configuration"]])))
    return tuple(found)


def stamped(table: pd.DataFrame, origin: Mapping) -> pd.DataFrame:
    """Return a table with those columns of its provenance that it lacks: rows of runs bring some of their own."""
    return table.assign(**{name: value for name, value in origin.items() if name not in table})


def summary_origin(runs: pd.DataFrame, origin: Mapping) -> dict:
    """Return the provenance of a table that sums up runs: theirs, and beside it that of the notebook that does so.

    Parameters
    ----------
    runs : pandas.DataFrame
        Stored ones, or the notebook's own, which lack columns of `origin` or all rows.
    origin : mapping
        The notebook's, from `micro_lib.core.runs.provenance`.

    Returns
    -------
    dict
        The fields of `origin`, but where the runs have them all their values, e.g. seed ``"1, 2, 3"``; then
        notebook_profile, notebook_seed, notebook_commit.
    """
    found = dict(origin)
    for name in ("profile", "seed", "device", "versions", "commit", "dirty"):
        if name in runs and len(runs):
            found[name] = ", ".join(map(str, sorted(runs[name].unique())))
    return found | {f"notebook_{name}": origin[name] for name in ("profile", "seed", "commit")}


def mean_fields(values: Sequence[float], name: str, over: str, level: float = 0.95) -> dict:
    """Return the mean of independent units as fields of a row.

    Parameters
    ----------
    values : sequence of float
        One a unit.
    name : str
        Of the mean.
    over : str
        What the units are, e.g. ``"folds"``.
    level : float
        Of the interval.

    Returns
    -------
    dict
        name, <name>_low and <name>_high (t), confidence (the level; all three NaN for one value), over.
    """
    low, high = tuple(t_interval(values, level))[1:] if len(values) > 1 else (math.nan, math.nan)
    confidence = level if len(values) > 1 else math.nan
    ends = {f"{name}_low": low, f"{name}_high": high}
    return {name: float(np.mean(values)), **ends, "confidence": confidence, "over": over}


def paired_fields(ours: Sequence[float], base: Sequence[float], over: str, level: float = 0.95) -> dict:
    """Return `paired_t` as fields of a row.

    Returns
    -------
    dict
        n, difference (ours minus base) with difference_low, difference_high, confidence and over as of `mean_fields`,
        p and effect_dz; of a single pair the difference alone, the others missing.
    """
    row = {"n": len(ours), **mean_fields(np.subtract(ours, base), "difference", over, level)}
    if len(ours) == 1:
        return {**row, "p": math.nan, "effect_dz": math.nan}
    test = paired_t(ours, base, level)
    return {**row, "p": test.p, "effect_dz": test.effect_dz}


def rounded(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Round a number for readers: to two digits of its interval's half-width, else to three significant digits.

    Parameters
    ----------
    value : float
        The number; NaN gives ``"-"``.
    low, high : float
        Ends of its interval, NaN where there is none, infinite where it is open.

    Returns
    -------
    str
        e.g. ``"0.713 [0.684, 0.742]"`` or ``"0.713"``; never in exponent form between 1e-4 and 1e15.
    """
    if math.isnan(value):
        return "-"
    half_width = (high - low) / 2 if math.isfinite(high - low) else min(value - low, high - value)
    wide = half_width > 1e-9 * abs(value)  # else equal numbers, but for their last bits
    scale, digits = (half_width, 2) if wide else (abs(value), 3)
    if not 0 < scale < math.inf:
        return f"{value:g}"
    if math.isnan(half_width) and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.2e}"
    decimals = digits - 1 - math.floor(math.log10(scale))
    places = max(decimals, 0)
    texts = [f"{round(number, decimals):.{places}f}" for number in (value, low, high) if not math.isnan(number)]
    return texts[0] if len(texts) < 3 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def show(df: pd.DataFrame) -> pd.DataFrame:
    """Return a table as readers see it: floats rounded, ``x``, ``x_low`` and ``x_high`` joined to one column ``x``.

    Parameters
    ----------
    df : pandas.DataFrame
        Any table; columns ``low`` and ``high`` belong to ``ours``.

    Returns
    -------
    pandas.DataFrame
        Same rows and order of columns, floats as text.
    """
    joined = {}
    for name in df.columns:
        low, high = ("low", "high") if name == "ours" else (f"{name}_low", f"{name}_high")
        if low in df.columns and high in df.columns:
            joined[name] = (low, high)
    bounds = {bound for pair in joined.values() for bound in pair}
    shown = df.drop(columns=list(bounds)).copy()
    for name in shown.columns:
        if pd.api.types.is_float_dtype(df[name]):
            ends = [df[bound].astype(float) for bound in joined.get(name, ())]
            shown[name] = [rounded(*numbers) for numbers in zip(df[name], *ends, strict=True)]
    return shown


def side_by_side(df: pd.DataFrame, rows: str, columns: str, value: str) -> pd.DataFrame:
    """Return one number of a long table as readers see it, a line for each of its `rows`, side by side for `columns`.

    Parameters
    ----------
    df : pandas.DataFrame
        With these columns, <value>_low and <value>_high; each pair of row and column once.
    rows, columns, value : str
        Names of its columns.

    Returns
    -------
    pandas.DataFrame
        Text, empty where there is none; both in the order of the table.
    """
    ends = df[[value, f"{value}_low", f"{value}_high"]].to_numpy(float)
    told = df.assign(told=[rounded(*numbers) for numbers in ends])
    wide = told.pivot(index=rows, columns=columns, values="told").fillna("")
    return wide.reindex(index=told[rows].unique(), columns=told[columns].unique())


def whole(df: pd.DataFrame) -> str:
    """Return a table as readers see it, see `show`, as HTML: pandas cuts what a notebook displays to a few rows."""
    with pd.option_context("display.max_colwidth", None):
        return show(df).to_html(index=False)


def claims_text(claims: pd.DataFrame) -> str:
    """Return the claims table as text for a terminal: rounded, one line a claim, the verdicts counted below."""
    if claims.empty:
        return "No notebook that ran states a claim."
    shown = show(claims)[_SHOWN].fillna("").astype(str)
    for name in shown:
        shown[name] = shown[name].str.slice(0, 60).str.ljust(min(shown[name].str.len().max(), 60))
    table = shown.to_string(index=False, justify="left")
    return f"{table}\n\n{len(claims)} claims: {_counted(claims)}"


def largest_profile(claims: pd.DataFrame) -> pd.DataFrame:
    """Return each claim once: as it was judged in the largest profile."""
    order = claims["profile"].map(PROFILES.index).sort_values(kind="stable").index
    return claims.loc[order].drop_duplicates("claim", keep="last").sort_index()


README_MARKS = ("<!-- claims, written by `make publish` -->", "<!-- end of claims -->")


def claims_markdown(claims: pd.DataFrame) -> str:
    """Return what readers see of the claims, as Markdown: verdicts counted, then the effects and statements judged.

    Levels, that is single numbers of tables, are counted alone: they are many, and say less across materials.

    Parameters
    ----------
    claims : pandas.DataFrame
        Columns `COLUMNS`. Of a claim measured in several profiles the largest one counts.

    Returns
    -------
    str
        For the README; ends with a line break.
    """
    chosen = largest_profile(claims)
    lines = ["| paper | where | verdicts |", "|---|---|---|"]
    for (paper, where), part in chosen.groupby(["paper", "where"], sort=False):
        lines.append(_line(paper, where, _counted(part)))
    lines += ["", f"{len(chosen)} claims: {_counted(chosen)}.", ""]
    lines += ["| effect or statement | published | ours | n, level | profile | verdict |", "|---|---|---|---|---|---|"]
    shown = chosen[chosen["verdict"].isin(MEASURED) & (chosen["kind"] != "level")]
    for row in shown.to_dict("records"):
        n = f"{row['n']} {row['over']}" + ("" if math.isnan(row["level"]) else f", {100 * row['level']:.3g} %")
        source = f"{row['claim']} ({row['paper']}, {row['where']})"
        verdict = row["verdict"] + f" ({_WIDE})" * _is_undecided(row)
        lines.append(_line(source, row["published"], _printed(row), n, row["profile"], verdict))
    return "\n".join(lines) + "\n"


def _printed(row: Mapping) -> str:
    """Our number as readers see it: with its interval and unit, or a count."""
    unit = "" if str(row["unit"]) == "1" else f" {row['unit']}"  # a table of pure numbers is read as integers
    if math.isnan(row["level"]) and not unit and float(row["ours"]).is_integer():
        return f"{row['ours']:.0f}"
    return rounded(row["ours"], row["low"], row["high"]) + unit


def _is_undecided(row: Mapping) -> bool:
    """Tell whether a verdict against a claim is none but for an interval too wide to tell."""
    return row["verdict"] in _AGAINST and str(row["why"]).startswith(TOO_WIDE)


_AGAINST, _WIDE = ("not reproduced", OF_STATEMENTS[1]), "too wide to tell"


def _counted(claims: pd.DataFrame) -> str:
    parts = []
    for verdict, of in claims.groupby(pd.Categorical(claims["verdict"], VERDICTS), observed=True):
        wide = of.apply(_is_undecided, axis=1).sum()
        parts.append(f"{len(of)} {verdict}" + (f" ({wide} {_WIDE})" if wide else ""))
    return ", ".join(parts)


def _line(*cells: str) -> str:
    return "| " + " | ".join(str(cell).replace("|", "/").replace("+-", "±") for cell in cells) + " |"


def with_claims(readme: str, claims: pd.DataFrame) -> str:
    """Return the text of the README with its claims section, between `README_MARKS`, written anew."""
    return with_section(readme, README_MARKS, claims_markdown(claims))


def with_section(readme: str, marks: tuple[str, str], section: str) -> str:
    """Return the text of the README with what stands between two marks replaced.

    Raises
    ------
    ValueError
        If the marks are not there, once each and in order.
    """
    start, end = (readme.find(mark) for mark in marks)
    if any(readme.count(mark) != 1 for mark in marks) or end < start:
        raise ValueError(f"the README needs the lines {marks[0]!r} and {marks[1]!r}, once each, in order")
    return f"{readme[: start + len(marks[0])]}\n{section}\n{readme[end:]}"
