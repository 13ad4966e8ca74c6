"""Proof that the checked cells of the notebooks notice a fault."""

import nbformat
import pytest
from helpers import example_notebook, nbval, slicing
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

NOTEBOOKS = sorted((nbval.ROOT / "notebooks").glob("*.ipynb"))

# Notebook -> functions behind its checked cells; each is spoilt in turn, and nbval has to fail in a checked cell.
FAULTS = {
    "03_example": ["micro_lib.core.labels:ClassMap.encode", "micro_lib.core.seeds:stream_seed"],
    "00_check_environment": [
        "micro_lib.core.profiles:settings",
        "micro_lib.analysis.metrics:score_boundaries",
        "micro_lib.analysis.metrics:confusion",
    ],
    "01_generator_design": [
        "micro_lib.synthesis.tessellation:tessellate",
        "micro_lib.synthesis.fields:perlin",
        "micro_lib.synthesis.scenario:Space.sample",
        "micro_lib.synthesis.imaging:detect",
    ],
    "02_crack_synthesis": [
        "micro_lib.synthesis.crack_statistics:measure_all",
        "micro_lib.synthesis.crack_statistics:per_tile",
        "micro_lib.synthesis.cracks:render",
        "micro_lib.synthesis.texture:grow",
        "micro_lib.synthesis.texture:copy_rate",
    ],
    "03_grain_synthesis": [
        "micro_lib.synthesis.scenario:Space.sample",
        "micro_lib.synthesis.grains:render",
        "micro_lib.analysis.grain_size:planimetric",
    ],
    "04_crack_classification": [
        "micro_lib.analysis.stats:agresti_coull",
        "micro_lib.analysis.matching:matched_pairs",
        "micro_lib.training.cracks:summary",
    ],
    "05_grain_segmentation": [
        "micro_lib.synthesis.grains:render",
        "micro_lib.analysis.grain_size:measure",
        "micro_lib.analysis.metrics:score_boundaries",
    ],
    "06_adaptive_sampling": [
        "micro_lib.synthesis.scenario:Space.sample",
        "micro_lib.synthesis.scenario:Space.neighbours",
        "micro_lib.analysis.metrics:confusion",
        "micro_lib.training.proposals:checked_scores",
    ],
    "07_vqvae_pixelcnn": [
        "micro_lib.models.vqvae:usage",
        "micro_lib.analysis.phases:phase_fractions",
        "micro_lib.analysis.phases:particles",
        "micro_lib.analysis.likeness:copy_distance",
    ],
    "08_joint_segmentation": [
        "micro_lib.analysis.metrics:confusion",
        "micro_lib.training.joint:union",
        "micro_lib.analysis.stats:label_equivalent",
    ],
    "09_source_segmentation": [
        "micro_lib.synthesis.bainite:domain",
        "micro_lib.reports.source_report:effects",
        "micro_lib.analysis.stats:paired_t",
    ],
    "10_domain_adaptation": [
        "micro_lib.data.framing:Framing.cut",
        "micro_lib.analysis.metrics:confusion",
        "micro_lib.reports.adaptation_report:ratio",
    ],
    "13_claims_and_figures": [
        "micro_lib.application.published:cells",
        "micro_lib.reports.claims_plots:effects",
        "micro_lib.application.protocol:cost",
    ],
}


def checked_part(path, folder, target=""):
    """Write the part of a notebook that its checked cells depend on; a function of it returns wrong values if named."""
    notebook = slicing.checked_part(nbformat.read(path, as_version=4))
    if target:
        # Before the setup, so that whatever imports the function afterwards gets the spoilt one.
        notebook.cells.insert(1, new_code_cell(f"from helpers.spoil import spoil\nspoil({target!r})"))
    copy = folder / path.name
    nbformat.write(notebook, copy)
    return copy


def noticed(result):
    """True if a checked cell ran and printed something else than what is stored."""
    return result.returncode == 1 and "mismatch" in result.stdout and "Cell execution caused" not in result.stdout


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example, executed."""
    folder = tmp_path_factory.mktemp("example")
    path = example_notebook.write(folder)
    notebook = nbformat.read(path, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in nbval.environment(folder / "out").items():
            patch.setenv(name, value)
        NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    nbformat.write(notebook, path)
    return path


def test_the_example_passes(example, tmp_path):
    result = nbval.run(example, tmp_path)
    assert result.returncode == 0, result.stdout


CASES = [(name, target) for name, targets in FAULTS.items() for target in targets]


def path_of(name, example):
    return example if name == "03_example" else nbval.ROOT / "notebooks" / f"{name}.ipynb"


@pytest.mark.parametrize("name", FAULTS)
def test_checked_cells_agree_without_a_fault(name, example, tmp_path):
    result = nbval.run(checked_part(path_of(name, example), tmp_path), tmp_path / "out")
    assert result.returncode == 0, result.stdout[-6000:]


@pytest.mark.parametrize("name, target", CASES)
def test_a_fault_in_a_function_is_noticed(name, target, example, tmp_path):
    result = nbval.run(checked_part(path_of(name, example), tmp_path, target), tmp_path / "out")
    assert noticed(result), result.stdout[-6000:]


def test_a_fault_in_a_function_behind_no_checked_cell_is_not_noticed(example, tmp_path):
    copy = checked_part(example, tmp_path, "micro_lib.core.labels:ClassMap.to_json")
    result = nbval.run(copy, tmp_path / "out")
    assert result.returncode == 0 and not noticed(result)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_faults_are_tried_for_every_notebook(path):
    assert len(FAULTS.get(path.stem, ())) >= 3, "name at least three functions behind its checked cells in FAULTS"
