"""The published configurations: planned whole, shapes without allocating, one step where memory allows."""

import json
import subprocess
import sys

import pandas as pd
import psutil
import pytest
import torch
from helpers import paper_steps

from micro_lib.application import protocol
from micro_lib.application.sweep import write_manifest
from micro_lib.application.tables import NOT_TESTABLE, claim_rows
from micro_lib.core.profiles import settings
from micro_lib.synthesis import cracks
from micro_lib.training.cracks import CONFIGURATIONS

PHASES = {f"{phase.where}: {phase.name}": phase for phase in protocol.phases()}


@pytest.fixture(scope="module")
def costs():
    return protocol.costs().set_index(["where", "name"])


def test_every_published_crack_tile_is_planned():
    plan = settings("cracks", "paper")
    table = cracks.scenario(cracks.invented(), plan["n_textures"]).sample(99_140, 1)
    assert len(table) == plan["n_train"] + plan["n_validation"] == 99_140
    assert table["seed"].is_unique and table["crack"].mean() == pytest.approx(0.5, abs=0.01)


def test_every_published_run_is_planned(tmp_path):
    arms = [CONFIGURATIONS[name] for name in ("synthetic", "real", "mixed")]
    runs = write_manifest("m:run", arms, settings("cracks", "paper")["seeds"], profile="paper", folder=tmp_path)
    assert len(runs) == 600 and runs["key"].is_unique and set(runs["seed"]) == set(range(1, 201))


@pytest.mark.parametrize("name", PHASES)
def test_published_batches_pass_without_being_allocated(name):
    phase = PHASES[name]
    network = protocol.NETWORKS[phase.network]
    before = psutil.Process().memory_info().rss
    with torch.device("meta"):
        made = network.build().to("meta")
        assert network.passed(made, phase.batch, phase.px).shape == ()
    assert all(parameter.is_meta for parameter in made.parameters())
    assert psutil.Process().memory_info().rss - before < 500e6


def test_the_published_sizes(costs):
    assert set(zip(costs["batch"], costs["px"], strict=True)) >= {(3584, 128), (64, 128), (16, 512), (8, 636)}
    runs = costs.reset_index().groupby("where")["runs"].max()
    assert runs["Trampert 2021, 3.2.2"] == 200 and runs["Trampert 2021, Table 2"] == 100
    millions = costs.groupby("network")["parameters"].first() / 1e6
    assert 339 < millions["dynamic_resnet50"] < 340 and 42 < millions["deeplabv2"] < 43


def test_operations_are_counted_as_published():
    # torchvision gives ResNet50 4.09e9 multiply-adds for an image of 224 px and three channels; backward is twice that
    # less the gradient of the image. The head of `learner` is small beside it.
    phase = protocol.Phase("", "", "resnet50", 2, 224, 1, 1)
    assert protocol.cost(phase)["operations"] == pytest.approx(2 * 3 * 2 * 4.09e9, rel=0.04)
    once, twice = (protocol.cost(phase._replace(batch=n))["operations"] for n in (2, 4))
    assert twice == 2 * once
    assert protocol.cost(phase._replace(is_frozen=True))["operations"] < 0.4 * protocol.cost(phase)["operations"]


def test_a_step_is_done_of_every_published_network_at_the_batch_of_its_phases():
    assert set(paper_steps.STEPS) == set(paper_steps.TRAININGS) == {phase.network for phase in PHASES.values()}
    for name, step in paper_steps.STEPS.items():
        assert step.published in {phase.batch for phase in PHASES.values() if phase.network == name}, name
        assert step.batch <= step.published


def test_pretraining_on_pictures_is_counted(costs):
    row = costs.loc[("Goetz 2022, Tables 2 to 5", "NanoSEM, before S.7 to S.9")]
    assert row["steps"] * row["batch"] == pytest.approx(100 * 15_000, rel=1e-3) and row["px"] == 256
    # VGG16 has 15.35e9 multiply-adds in its convolutions at 224 px and three channels.
    assert row["operations"] == pytest.approx(16 * 6 * 15.35e9 * (256 / 224) ** 2, rel=0.05)


def test_published_hours_stand_beside_ours(costs):
    adapted, supervised = protocol.claims(costs.reset_index())
    assert (adapted["published"], supervised["published"]) == ("6 h", "0.75 h")
    row = costs.xs("AdaptSegNet", level="name").iloc[0]
    assert adapted["ours"] == pytest.approx(row["gpu_hours"] / row["runs"]) and adapted["verdict"] == NOT_TESTABLE
    assert len(claim_rows([adapted, supervised], profile="quick", notebook="13", runs=pd.DataFrame({"seed": []}))) == 2


def test_hours_follow_from_operations(costs):
    """13e12 operations a step of 8 tiles, 7,700 steps, 5 folds: 5.0e17 operations, three hours at 4.7e13 a second."""
    row = costs.xs("source, DeepLabv2", level="name").iloc[0]
    assert row["operations"] == pytest.approx(13e12, rel=0.05) and row["gpu_hours"] == pytest.approx(2.97, rel=0.05)
    assert (costs["gpu_hours"] > 0).all()


def test_steps_are_measured_and_multiplied(costs, monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 12.0])  # the first step of nine seconds, the second of two
    monkeypatch.setattr(protocol, "NETWORKS", {"vqvae": protocol.NETWORKS["vqvae"]})
    monkeypatch.setattr(protocol.time, "process_time", lambda: next(clock))
    rates = protocol.rates()
    (row,) = rates.to_dict("records")
    small = protocol.cost(protocol.Phase("", "", "vqvae", row["batch"], row["px"], 1, 1))
    assert row["core_seconds"] == 2 and row["operations"] == small["operations"] == 2 * row["operations_per_s"]
    hours = protocol.with_core_hours(costs.reset_index(), rates).set_index("name")["core_hours"]
    alike = rates.assign(network="dynamic_resnet50", operations_per_s=1e11)  # 120e12 operations, 1,000 steps, 200 runs
    assert protocol.with_core_hours(costs.reset_index(), alike)["core_hours"].max() == pytest.approx(66_500, rel=0.01)
    published = costs.xs("VQ-VAE", level="name").iloc[0]
    times = published["batch"] / row["batch"] * (published["px"] / row["px"]) ** 2  # as many steps of this size in one
    assert hours["VQ-VAE"] == pytest.approx(2 * times * 61_850 * 4 / 3600, rel=1e-3) and hours.isna().sum() > 5


@pytest.mark.parametrize("name", paper_steps.STEPS)
def test_a_step_is_done_where_memory_allows(name, capsys):
    step, free_gb = paper_steps.STEPS[name], psutil.virtual_memory().available / 1e9
    if free_gb < step.gigabytes:
        pytest.skip(f"{name}: {free_gb:.0f} GB of memory are free; a step wants {step.gigabytes:g}")
    command = [sys.executable, "-W", "ignore", paper_steps.__file__, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = pd.Series(json.loads(done.stdout.splitlines()[-1]))
    with capsys.disabled():
        print(
            f"\n{name}: one step of {step.batch} image(s) a domain, {found['seconds']:.0f} s of processor time, "
            f"{found['peak_gb']:.1f} GB; not run: the published batch of {step.published}, and all other steps"
        )
    assert found["finite"] and 0 < found["loss"] < 30 and found["peak_gb"] < step.gigabytes
