"""Time that a function takes, and the table it goes into."""

from numbers import Real
from time import thread_time

import pandas as pd

from micro_lib.core.runs import provenance


def seconds(function, repeats=1):
    """Return the least processor time of this one thread in some calls: what else runs on the machine counts little."""
    times = []
    for _ in range(repeats):
        start = thread_time()
        function()
        times.append(thread_time() - start)
    return min(times)


def measured(report):
    """Return one row a quantity of every measurement in a report of pytest-benchmark: its best time, what it noted."""
    processor = report["machine_info"]["cpu"].get("brand_raw", "cpu")
    origin = {**provenance(profile="study", seed=0, device=processor), "measured": report["datetime"][:10]}
    rows = []
    for one in report["benchmarks"]:
        name = one["fullname"].removeprefix("tests/benchmarks/").replace(".py::", "::")
        found = {"best_ms": 1e3 * one["stats"]["min"], **one["extra_info"]}
        numbers = {key: value for key, value in found.items() if isinstance(value, Real)}
        rows += [{"benchmark": name, "quantity": key, "value": value, **origin} for key, value in numbers.items()]
    return pd.DataFrame(rows)
