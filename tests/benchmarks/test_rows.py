"""Measured times become rows of a table."""

from helpers.timing import measured


def test_a_report_becomes_one_row_a_number():
    found = {
        "name": "test_it",
        "fullname": "tests/benchmarks/test_grains_speed.py::test_it[a]",
        "stats": {"min": 0.002},
    }
    found["extra_info"] = {"times_faster": 21.5, "losses": {"a": [1.0]}, "note": "none"}
    report = {
        "machine_info": {"cpu": {"brand_raw": "Some CPU"}},
        "datetime": "2026-01-02T03:04:05",
        "benchmarks": [found],
    }
    table = measured(report).set_index("quantity")
    assert table["value"].to_dict() == {"best_ms": 2.0, "times_faster": 21.5}
    assert set(table["benchmark"]) == {"test_grains_speed::test_it[a]"}
    assert table.loc["best_ms", ["device", "measured"]].tolist() == ["Some CPU", "2026-01-02"]
    assert {"commit", "versions", "dirty"} <= set(table)
