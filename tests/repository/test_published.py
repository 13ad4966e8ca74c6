"""The table of published numbers agrees with itself where one number follows from others."""

import re
from collections import Counter

import nbformat
import pandas as pd
import pytest

from micro_lib.analysis.stats import agresti_coull
from micro_lib.application.tables import SEPARATOR, largest_profile, with_claims
from micro_lib.core.runs import read_table, repository_root

ARMS = ("no adaptation", "AdaptSegNet")
TRIALS = {"Table 1": 40_000, "Table 2": 2_500, "section 3.2.3": 40_000}


@pytest.fixture(scope="module")
def published():
    return read_table(repository_root() / "data" / "published.csv")


def test_every_row_says_what_it_is(published):
    assert not published.duplicated(["paper", "where", "item", "quantity"]).any()
    assert published[["paper", "where", "item", "quantity"]].notna().all().all()
    assert set(published["unit"].dropna()) == {"1", "%", "h"}
    cells = published.groupby(["paper", "where"]).size()
    sizes = {"Table 2": 10, "Table 3": 22, "Table 4": 22, "Table 5": 4, "Table 6": 36, "Table 7": 9}
    assert {where: cells["Goetz 2022", where] for where in sizes} == sizes
    assert cells["Trampert 2021", "Table 1"] == 8 and cells["Trampert 2021", "Table 2"] == 4


def test_printed_intervals_of_trampert_are_those_of_runs_squared_trials(published):
    printed = published[(published["paper"] == "Trampert 2021") & published["low"].notna()]
    assert len(printed) == 12
    for row in printed.to_dict("records"):
        value, trials = float(row["value"]), TRIALS[row["where"]]
        found = agresti_coull(value * trials, trials, 0.99)
        digits = 5e-3 if "two digits" in row["note"] else 1.6e-3
        assert (found.low, found.high) == (
            pytest.approx(row["low"], abs=1.6e-3),
            pytest.approx(row["high"], abs=digits),
        )


def test_gains_of_adaptive_sampling_follow_from_the_levels(published):
    trampert = published[published["paper"] == "Trampert 2021"].set_index(["where", "item", "quantity"])
    for score in ("pixel error", "mean IoU"):
        adaptive, random = (float(trampert.loc[("Table 2", arm, score), "value"]) for arm in ("adaptive", "random"))
        gained = trampert.loc[("section 3.3", "adaptive against random", f"{score} gained"), "recomputed"]
        assert gained == pytest.approx(adaptive - random)


def test_reductions_and_reversals_follow_from_their_tables(published):
    numbers = published.set_index(["paper", "where", "item", "quantity"])
    for data in ("test", "all"):
        real, mixed = (
            float(numbers.loc[("Trampert 2021", "Table 1", arm, f"error on {data} data"), "value"])
            for arm in ("real", "mixed")
        )
        row = numbers.loc[("Trampert 2021", "section 3.1.3", "mixed against real", f"error reduced, {data} data")]
        assert float(row["value"]) == row["recomputed"] == pytest.approx(real - mixed)
    goetz = numbers.loc["Goetz 2022"]
    table = goetz.loc["Table 7"]
    value = table["value"].astype(float)
    off = {
        name: [abs(value[name, f"phase fraction, {arm}"] - value[name, "phase fraction, truth"]) for arm in ARMS]
        for name in ("T1", "T2", "T3")
    }
    improved = goetz.loc[("section 4.2", "phase fractions", "targets of three whose estimate AdaptSegNet improves")]
    assert sum(adapted < none for none, adapted in off.values()) == improved["recomputed"] < float(improved["value"])
    none, adapted = (table.loc[("T3", f"phase fraction, {arm}"), "sd"] for arm in ARMS)
    factor = goetz.loc[("section 4.2", "phase fractions", "factor by which AdaptSegNet reduces the scatter on T3")]
    assert none / adapted == pytest.approx(factor["recomputed"], abs=0.05) and float(factor["value"]) == 10
    none, adapted = (float(score) for score in goetz.loc["Table 5"].xs("mIoU", level="quantity")["value"])
    labels = float(goetz.loc[("section 4.2", "T3, trained on target labels", "mIoU"), "value"])
    share = goetz.loc[("section 4.2", "T3, AdaptSegNet against target labels", "share of the gap closed"), "recomputed"]
    assert 100 * (adapted - none) / (labels - none) == pytest.approx(share, abs=0.05)
    reference = float(goetz.loc["Table 2"]["value"].iloc[-1])  # S.10
    for name in off:
        after = float(goetz.loc[("section 4.2", name, "source mIoU after adaptation"), "value"])
        gained = goetz.loc[("section 4.2", name, "source mIoU gained by adaptation"), "recomputed"]
        assert gained == pytest.approx(after - reference)


def test_sampled_grains_are_coarser_by_the_ratio_of_the_noted_sizes(published):
    rows = published[published["paper"] == "Noguchi 2021"]
    assert rows["quantity"].tolist() == ["mean grain size gained"] * 4 + ["variance of phase fraction gained"]
    for row in rows.itertuples():
        sampled, real = map(float, re.findall(r"[\d.]+(?=(?: um)? of)", row.note))
        assert row.recomputed == pytest.approx(sampled / real - 1, abs=5e-4)


def test_transferabilities_follow_from_the_scores(published):
    goetz = published[published["paper"] == "Goetz 2022"]
    source = {
        re.match(r"S\.\d+", row.item)[0]: float(row.value) for row in goetz[goetz["where"] == "Table 2"].itertuples()
    }
    rows = goetz[goetz["quantity"].str.startswith("RDT") & goetz["where"].str.startswith("Table")]
    for row in rows.itertuples():
        same = goetz[(goetz["where"] == row.where) & (goetz["item"] == row.item)].set_index("quantity")["value"]
        score = float(same[row.quantity.replace("RDT", "mIoU")])
        number = "10" if "DeepLab" in row.item else re.match(r"T\d\.(\d+)", row.item)[1]
        reference = source[f"S.{number}"]
        assert row.recomputed == pytest.approx(100 * (score - reference) / reference, abs=0.051)


def test_most_printed_transferabilities_agree_and_those_that_do_not_are_known(published):
    rows = published[published["quantity"].str.startswith("RDT") & published["recomputed"].notna()]
    apart = (pd.to_numeric(rows["value"]) - rows["recomputed"]).abs()
    wrong = rows.loc[(apart > 1) & (rows["unit"] == "%"), ["where", "item"]]
    items = {(where, item.split(",")[0]) for where, item in wrong.itertuples(index=False, name=None)}
    assert items == {("Table 3", "T1.3"), ("Table 4", "T2.3"), ("Table 6", "T2.3")}


@pytest.fixture(scope="module")
def claims():
    return read_table(repository_root() / "figures" / "tables" / "claims.csv")


def test_every_published_number_is_answered_by_one_claim(published, claims):
    chosen = largest_profile(claims)
    names = chosen.assign(name=chosen["answers"].fillna("").str.split(SEPARATOR)).explode("name").query("name != ''")
    answered = list(names[["paper", "where", "name"]].itertuples(index=False, name=None))
    assert not [name for name, count in Counter(answered).items() if count > 1]
    numbers = published.assign(name=published["item"] + ": " + published["quantity"])
    assert set(answered) == set(numbers[["paper", "where", "name"]].itertuples(index=False, name=None))


def test_every_published_figure_has_ours_beside_it_or_what_differs():
    folder = repository_root() / "notebooks"
    cells = nbformat.read(folder / "13_claims_and_figures.ipynb", as_version=4).cells
    (text,) = (cell.source for cell in cells if cell.source.startswith("## 5 The published figures"))
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert all(len(row) == 5 and row[4] for row in rows)
    named = {re.match(r"(\w+).* 20\d\d, (\d)", row[0]) for row in rows} - {None}
    numbers = {("Trampert", str(n)) for n in range(1, 5)} | {("Goetz", str(n)) for n in range(1, 8)}
    assert {match.groups() for match in named} == numbers
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 15 and not [link for link in links if not (folder / link).is_file()]
    assert all("](" in row[2] or row[2] in ("none", "section 1 there") for row in rows)


def test_the_readme_states_the_claims_table(claims):
    readme = (repository_root() / "README.md").read_text(encoding="utf-8")
    assert with_claims(readme, claims) == readme, "run `make publish`"
