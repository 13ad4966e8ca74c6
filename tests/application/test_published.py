"""Every published number finds its answer, or the reason why it has none."""

import math

import pandas as pd
import pytest

from micro_lib.application import tables
from micro_lib.application.published import answering, beside_ours, cell, cells, is_measured, unanswered

ERROR = ("Trampert 2021", "section 3.2.3", "grain boundaries", "pixel error")
MIOU = (*ERROR[:3], "mean IoU")


def claims(*rows, profile="study"):
    return tables.claim_rows(rows, profile=profile, notebook="05_grain_segmentation", seeds=[1])


def claim(*names, ours=0.15, claim="error"):
    return {
        "claim": claim,
        **answering(*(cell(*name) for name in names)),
        "ours": ours,
        "n": 3,
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


def test_the_largest_profile_answers():
    both = pd.concat(
        [claims(claim(ERROR, ours=0.2)), claims(claim(ERROR, ours=0.1), profile="quick")], ignore_index=True
    )
    found = beside_ours(both).set_index(["where", "quantity"]).loc[(ERROR[1], ERROR[3])]
    assert (found["ours"], found["profile"]) == (0.2, "study")


def test_what_no_claim_answers_is_claimed_with_its_reason():
    table = beside_ours(claims(claim(ERROR)))
    rows = tables.claim_rows(unanswered(table), profile="study", notebook="13_claims_and_figures", seeds=())
    assert len(rows) == len(cells()) - 1 and not rows["claim"].duplicated().any()
    stern = rows[rows["paper"] == "Volman Stern 2024"]
    assert (stern["verdict"] == "cannot be tested with open data").all() and len(stern) == 1
    whole = beside_ours(pd.concat([claims(claim(ERROR)), rows], ignore_index=True))
    assert whole["claim"].ne("").all() and all(math.isnan(ours) for ours in whole.loc[~is_measured(whole), "ours"])
