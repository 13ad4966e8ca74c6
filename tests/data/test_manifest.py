"""A manifest is read as it is meant, or refused with the line, what was expected and how to mend it."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micro_lib.core.runs import write_table
from micro_lib.data.formats import MicrographError
from micro_lib.data.manifest import inspected, read_manifest

# Cells are stripped, so texts neither begin nor end with blanks; a CSV file holds no zero bytes and no lone surrogates.
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9)


@given(st.dictionaries(TEXTS | st.sampled_from(["001", "1", "NaN", "None", "a, b"]), TEXTS, min_size=1, max_size=5))
def test_names_and_specimens_come_back_letter_by_letter(tmp_path_factory, specimens):
    path = tmp_path_factory.mktemp("pack") / "manifest.csv"
    write_table(pd.DataFrame({"name": list(specimens), "specimen": list(specimens.values())}), path)
    table = read_manifest(path)
    assert dict(zip(table["name"], table["group"], strict=True)) == specimens
    assert table["name"].is_monotonic_increasing and table["um_per_px"].isna().all() and (table["domain"] == "").all()


@pytest.fixture
def manifest(tmp_path):
    def write(text, encoding="utf-8"):
        (tmp_path / "manifest.csv").write_bytes(text.encode(encoding))
        return tmp_path / "manifest.csv"

    return write


def test_numbers_and_byte_order_marks_and_blanks(manifest):
    text = "name, specimen,um_per_px,oxide_fraction,domain\r\n002 ,s,0.5,0,side view\r\n001,s,,0.25,\r\n,,,,\r\n"
    table = read_manifest(manifest(text, "utf-8-sig"))
    assert table["name"].tolist() == ["001", "002"] and table["domain"].tolist() == ["", "side view"]
    assert table["um_per_px"].isna().tolist() == [True, False] and table["um_per_px"][1] == 0.5
    assert table["oxide_fraction"].tolist() == [0.25, 0.0]


def test_without_an_overlap_group_a_micrograph_belongs_to_its_specimen(manifest):
    table = read_manifest(manifest("name,specimen,overlap_group\np,a,g1\nq,b,\nr,c,\nt,,g1\n"))
    assert table["group"].tolist() == ["g1", "b", "c", "g1"]


FAULTS = {
    "empty": ("", "an empty file; expected the columns name and specimen"),
    "header only": ("name,specimen\n", "a header without rows; expected one row a micrograph"),
    "no specimen": ("name\na\n", r"columns \['name'\]; expected the columns name and specimen"),
    "a column twice": ("name,specimen,name\na,s,b\n", "each once"),
    "semicolons": ("name;specimen\na;s\n", "Separate the columns by commas"),
    "decimal comma": ("name,specimen,um_per_px\na,s,0,5\n", "4 cells in line 2; expected 3.*Decimal signs are points"),
    "decimal comma in quotes": ('name,specimen,um_per_px\na,s,"0,5"\n', "um_per_px '0,5' in line 2.*Write 0.5"),
    "no number": ("name,specimen,um_per_px\na,s,small\n", "um_per_px 'small' in line 2; expected a positive number"),
    "size 0": ("name,specimen,um_per_px\na,s,0\n", "um_per_px '0' in line 2; expected a positive number"),
    "NaN": (
        "name,specimen,oxide_fraction\na,s,nan\n",
        "oxide_fraction 'nan' in line 2; expected a number. Empty means",
    ),
    "open quotes": ('name,specimen\n"a,s\n', "broken CSV in line 2"),
    "no name": ("name,specimen\n,s\n", "no name in line 2"),
    "a name twice": ("name,specimen\na,s\nb,s\na,t\n", "name 'a' in lines 2, 4; expected every name once"),
    "no group": ("name,specimen\na,\n", "neither specimen nor overlap_group in line 2"),
    "a group in part": (
        "name,specimen,overlap_group\na,s,g\nb,s,\n",
        "specimen 's' without overlap_group in line 3, elsewhere with one",
    ),
}


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named_with_their_file_and_line(manifest, text, words):
    with pytest.raises(MicrographError, match=words) as caught:
        read_manifest(manifest(text))
    assert str(caught.value).startswith(str(manifest(text)))


def test_a_manifest_that_is_not_there_is_told(tmp_path):
    with pytest.raises(MicrographError, match=r"none\.csv: found no readable file"):
        read_manifest(tmp_path / "none.csv")


def test_other_encodings_are_refused_with_the_line(manifest):
    for encoding in ("latin-1", "utf-16"):
        with pytest.raises(MicrographError, match=r"letters in line \d that are not in UTF-8.*Save it as UTF-8"):
            read_manifest(manifest("name,specimen\na,s\nb,Prüfling\n", encoding))
    assert read_manifest(manifest("name,specimen\na,s\nb,Prüfling\n"))["group"].tolist() == ["s", "Prüfling"]


def test_all_faults_are_found_at_once_and_the_first_says_so(manifest):
    path = manifest("name,specimen,um_per_px\na,,0.5\na,s,x\n")
    assert len(inspected(path)[1]) == 3
    with pytest.raises(MicrographError, match=r"2 more: `python -m micro_lib check .*` lists all"):
        read_manifest(path)
