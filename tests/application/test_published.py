"""Every published number finds its answer, or the reason why it has none."""

import math
import re

import pandas as pd
import pytest

from micro_lib.application import published, tables
from micro_lib.application.published import (
    answering,
    beside_ours,
    cell,
    cells,
    is_measured,
    judged_gain,
    judged_level,
    judged_statement,
    ours_of,
    unanswered,
    untestable_level,
)

ERROR = ("Trampert 2021", "section 3.2.3", "grain boundaries", "pixel error")
MIOU = (*ERROR[:3], "mean IoU")
SEEDS = pd.DataFrame({"seed": [1]})


def claims(*rows, profile="study"):
    return tables.claim_rows(rows, profile=profile, notebook="05_grain_segmentation", runs=SEEDS)


def claim(*names, ours=0.15, claim="error"):
    return {
        "claim": claim,
        **answering(*(cell(*name) for name in names)),
        "kind": "level",
        "ours": ours,
        "n": 3,
        "over": "runs",
        "verdict": "reproduced",
    }


def test_numbers_are_printed_as_the_papers_print_them():
    assert cell(*ERROR).printed == "0.099 +- 0.010"
    assert (
        cell("Goetz 2022", "Table 5", "T3.2, UDA - ResNet-101 DeepLabv2, ImageNet, extended", "RDT").printed == "-7.7 %"
    )
    assert cell("Trampert 2021", "Table 1", "mixed against real", "p, test data").printed == "p = 2.16e-47"
    gained = cell("Trampert 2021", "section 3.3", "adaptive against random", "mean IoU gained")
    assert (gained.printed, gained.number) == ("+0.015, from its means", 0.015) and cell(*MIOU).number == 0.745

    assert cell("Goetz 2022", "section 4.3", "typical training", "supervised DeepLabv2").printed == "0.75 h"
    improved = cell(
        "Goetz 2022", "section 4.2", "phase fractions", "targets of three whose estimate AdaptSegNet improves"
    )
    assert improved.printed == "3 (its own numbers give 2)" and improved.recomputed == 2


def test_a_number_that_its_own_table_contradicts_says_so_beyond_rounding():
    item = "T1.{}, DG - VGG16 U-Net, {}"
    wrong = cell("Goetz 2022", "Table 3", item.format(3, "random, extended"), "RDT")
    assert wrong.printed == "-4.2 % (its own numbers give -6.6)"
    assert cell("Goetz 2022", "Table 3", item.format(5, "ImageNet, basic"), "RDT").printed == "1.2 %", "1.1 by its own"
    assert not cell("Goetz 2022", "section 4.2", "T3, AdaptSegNet against target labels", "mIoU lost").is_contradicted


def ours(low, high, number=None):
    middle = (low + high) / 2 if number is None else number
    return {"ours": middle, "low": low, "high": high, "level": 0.95, "n": 5, "over": "folds"}


@pytest.mark.parametrize(
    ("low", "high", "verdict", "too_wide"),
    [
        (0.80, 1.20, "reproduced", False),
        (0.76, 1.24, "reproduced", False),
        (0.74, 1.26, "not reproduced", True),  # half-width 0.26, more than a quarter of 1
        (1.01, 1.20, "not reproduced", False),
        (1.10, 3.00, "not reproduced", False),  # wide, but the published number lies outside anyway
    ],
)
def test_a_level_is_reproduced_by_a_narrow_interval_alone(low, high, verdict, too_wide):
    found = judged_level(ours(low, high), 1.0, "reason")
    assert (found["verdict"], found["kind"], found["level"]) == (verdict, "level", 0.95)
    assert found["why"].startswith("our interval is too wide to tell") == too_wide
    mirrored = judged_level(ours(-high, -low), -1.0, "reason")
    assert mirrored["verdict"] == verdict, "of negative numbers too"


@pytest.mark.parametrize(
    ("low", "high", "theirs", "verdict", "too_wide"),
    [
        (1.6, 2.4, 2, "reproduced", False),
        (1, 3, 2, "direction reproduced", True),
        (1, 3, 5, "direction reproduced", False),
        (-1, 3, 2, "not reproduced", True),
        (-1, 3, 5, "not reproduced", False),  # none or small, but not as large as published
        (-2.4, -1.6, -2, "reproduced", False),
        (-3, -1, -5, "direction reproduced", False),
        (1, 3, -2, "not reproduced", False),
        (-3, -1, 2, "not reproduced", False),
    ],
)
def test_an_effect_needs_the_sign_of_the_published_one(low, high, theirs, verdict, too_wide):
    found = judged_gain(ours(low, high), theirs, "reason")
    assert found["verdict"] == verdict
    assert found["why"] == ("our interval is too wide to tell; reason" if too_wide else "reason")


@pytest.mark.parametrize(
    ("low", "high", "holds", "too_wide"), [(1, 3, True, False), (-1, 3, False, True), (-3, -1, False, False)]
)
def test_a_statement_that_an_interval_leaves_open_says_so(low, high, holds, too_wide):
    found = judged_statement(ours(low, high), holds, "reason")
    assert found["verdict"] == ("holds here" if holds else "does not hold here")
    assert found["why"] == ("our interval is too wide to tell; reason" if too_wide else "reason")
    assert judged_statement({"ours": 0.3, "n": 4, "over": "choices"}, False, "reason")["why"] == "reason"


def test_levels_of_closed_data_are_not_judged_however_close():
    found = untestable_level(ours(0.99, 1.01), "generated")
    assert found["verdict"] == tables.NOT_TESTABLE and found["ours"] == 1


def test_our_number_brings_its_level_and_unit_of_resampling():
    row = {**tables.mean_fields([1.0, 3.0], "gain", "folds", 0.9), "n": 2}
    found, turned = ours_of(row, "gain", 100), ours_of(row, "gain", -1)
    assert (found["ours"], found["level"], found["over"], found["n"]) == (200, 0.9, "folds", 2)
    assert (turned["ours"], turned["low"], turned["high"]) == (-2, -row["gain_high"], -row["gain_low"])


def test_an_unknown_number_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="has no 'grain boundaries: F1'; it has grain boundaries: pixel error"):
        cell(*ERROR[:3], "F1")


def test_every_name_belongs_to_one_number():
    names = [(one.paper, one.where, one.name) for one in cells()]
    assert len(set(names)) == len(names)


def test_a_number_stands_beside_the_claim_that_answers_it():
    table = beside_ours(claims(claim(ERROR, MIOU)))
    assert len(table) == len(cells())
    found = table[is_measured(table)]
    assert found[["quantity", "ours", "published"]].to_numpy().tolist() == [
        ["pixel error", 0.15, 0.099],
        ["mean IoU", 0.15, 0.745],
    ]
    assert table.loc[~is_measured(table), "why"].ne("").all()


def test_readers_see_every_row_and_word_of_a_paper_by_its_tables():
    wordy = {**claim(ERROR), "why": "so " * 60}
    html = published.as_html(beside_ours(claims(wordy)), "Trampert 2021")
    titles = re.findall("<h4>Trampert 2021, (.*)</h4>", html)
    assert titles == list(dict.fromkeys(one.where for one in cells() if one.paper == "Trampert 2021"))
    assert html.count("<tr") == sum(one.paper == "Trampert 2021" for one in cells()) + len(titles)
    assert ("so " * 60).strip() in html and "<td>0.099 +- 0.010</td>" in html


def test_the_largest_profile_answers():
    both = pd.concat(
        [claims(claim(ERROR, ours=0.2)), claims(claim(ERROR, ours=0.1), profile="quick")], ignore_index=True
    )
    found = beside_ours(both).set_index(["where", "quantity"]).loc[(ERROR[1], ERROR[3])]
    assert (found["ours"], found["profile"]) == (0.2, "study")


def test_what_no_claim_answers_is_claimed_with_its_reason():
    table = beside_ours(claims(claim(ERROR)))
    rows = tables.claim_rows(unanswered(table), profile="study", notebook="13_claims_and_figures", runs=SEEDS[:0])
    assert len(rows) == len(cells()) - 1 and not rows["claim"].duplicated().any()
    stern = rows[rows["paper"] == "Volman Stern 2024"]
    assert (stern["verdict"] == "cannot be tested with open data").all() and len(stern) == 1
    whole = beside_ours(pd.concat([claims(claim(ERROR)), rows], ignore_index=True))
    assert whole["claim"].ne("").all() and all(math.isnan(ours) for ours in whole.loc[~is_measured(whole), "ours"])
