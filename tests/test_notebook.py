"""analyze_results.ipynb runs, shows what experiments/ says of the same results.csv, and is stored clean."""

import base64
import itertools
import re
import sys

import numpy as np
import pytest
from conftest import ROOT, require_stored_clean

from data import protocols
from experiments import report
from experiments.results import Sweep, write_results

NOTEBOOK = ROOT / "analyze_results.ipynb"
FACTORS = {"0.25": "0.25", "0.5": "0.5", "0.75": "0.75", "fused": "0.25 0.5 0.75"}
TESTED = ("ForenSynths", "DiffusionForensics")
ERROR = "train.py ended with status 1"

nbformat = pytest.importorskip("nbformat")


def families():
    """{(protocol, generator): family} of four each; few, so that the test is quick."""
    return {(slug, one.name): one.family for slug in TESTED for one in protocols.get(slug).generators[-4:]}


def write(path, variants, seeds):
    """A results.csv with real generators of TESTED; factor 0.25 gains on GANs and loses on the others."""
    rng = np.random.default_rng(0)
    rows = []
    for variant, seed in itertools.product(variants, seeds):
        row = {
            "cell": f"{variant}-seed{seed}",
            "variant": variant,
            "seed": seed,
            "status": "finished",
            "error": "",
            "reference": "0.5",
            "description": f"npr, factor {FACTORS[variant]}",
            "parameters": 1_443_717,
            "factors": FACTORS[variant],
            "epochs": 5,
            "train_seconds": 60.0,
        }
        for column, start, end in (("loss", 0.7, 0.1), ("val_acc", 0.5, 0.95), ("val_ap", 0.5, 0.97)):
            row[column] = " ".join(map(str, np.linspace(start, end, 5) + rng.normal(0, 0.02, 5)))
        if variant == "fused":
            weights = rng.dirichlet([5, 20, 5])
            row["scale_weights"] = " ".join(
                f"{f}:{w:.6f}" for f, w in zip((0.25, 0.5, 0.75), weights, strict=True)
            )
        for number, ((protocol, generator), family) in enumerate(families().items()):
            shift = {"0.25": 0.06 if family == "gan" else -0.04, "fused": 0.05}.get(variant, 0)
            reals, fakes, ap = 0.75 + 0.01 * number + shift + rng.normal(0, 0.01, 3)
            shares = {"acc": (reals + fakes) / 2, "ap": ap, "r_acc": reals, "f_acc": fakes}
            for metric, value in {**shares, "reals": 200, "fakes": 200}.items():
                row[f"{protocol}/{generator}/{metric}"] = value
        rows.append(row)
    rows.append({"cell": "0.75-seed9", "variant": "0.75", "seed": 9, "status": "failed", "error": ERROR})
    write_results(path, rows)
    return Sweep.read(path)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(path of a results.csv, its Sweep)."""
    path = tmp_path_factory.mktemp("experiment") / "results.csv"
    return path, write(path, FACTORS, (0, 1, 2))


@pytest.fixture(scope="module")
def executed(results, tmp_path_factory):
    """The notebook with its outputs, run by a kernel of this interpreter outside the repository."""
    nbclient = pytest.importorskip("nbclient")
    kernelspec = pytest.importorskip("ipykernel.kernelspec")
    folder = tmp_path_factory.mktemp("kernel")
    kernelspec.write_kernel_spec(folder / "kernels" / "python3")  # names sys.executable
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):  # nothing of the user's counts
            patch.setenv(name, str(folder))
        patch.setenv("NPR_RESULTS", str(results[0]))
        patch.setenv("NPR_ROOT", str(ROOT))
        patch.delenv("NPR_PROTOCOL_FILE", raising=False)
        client = nbclient.NotebookClient(
            nbformat.read(NOTEBOOK, 4), timeout=300, resources={"metadata": {"path": str(folder)}}
        )
        return client.execute()


@pytest.fixture(scope="module")
def outputs(executed):
    return [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.fixture(scope="module")
def text(outputs):
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def lines(outputs):
    """Every row of every table, as a list of what stands in its fields."""
    html = "".join(output.data.get("text/html", "") for output in outputs if "data" in output)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", html, re.S)]


@pytest.fixture
def run_here(monkeypatch):
    """Runs the code cells in this process, without a kernel; returns their names."""
    pytest.importorskip("IPython")

    def run(results):
        monkeypatch.chdir(ROOT / "experiments")  # the notebook looks for the root above the folder it runs in
        monkeypatch.setenv("NPR_RESULTS", str(results))
        monkeypatch.delenv("NPR_PROTOCOL_FILE", raising=False)
        monkeypatch.setattr(sys, "path", [*sys.path])
        names = {"__name__": "__main__"}
        for cell in nbformat.read(NOTEBOOK, 4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, f"cell {cell.id}", "exec"), names)
        return names

    return run


def percent(numbers):
    return [f"{100 * number:.1f}" for number in numbers]


@pytest.mark.slow
def test_runs_without_an_error_or_a_warning(outputs):
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if "Warning" in output.get("text", "")]


@pytest.mark.slow
def test_shows_the_cells_and_the_failed_one(text, lines):
    assert "12 finished, 1 failed" in text and f"0.75-seed9: {ERROR}" in text
    assert "reference 0.5" in text and "seeds:      0, 1, 2\n" in text
    assert sum(line[3:4] == ["finished"] for line in lines) == 12


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["acc", "ap"])
def test_tables_are_those_of_answers(results, lines, metric):
    sweep = results[1]
    for name, row in report.summary(sweep, metric).iterrows():
        assert [name, *percent(row[["mean", "std", "low", "high", *TESTED]])] in lines
    for name, row in report.by_family(sweep, families(), metric).iterrows():
        assert [name, *percent(row)] in lines


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["acc", "ap"])
def test_verdicts_and_answers_are_those_of_answers(results, text, metric):
    sweep = results[1]
    sentences = report.verdicts(sweep, "0.5", metric)
    assert len(sentences) == 3
    told = report.answers(sweep, families(), "0.5", metric)
    sentences += [sentence for _, found in told for sentence in found]
    assert not [sentence for sentence in sentences if sentence not in text]
    assert all(question in text for question in report.QUESTIONS)
    assert told[0][1][0].startswith("Yes") and told[1][1][0].startswith("Yes")  # as the numbers were made
    assert told[2][1][0].startswith("Yes: fused")


@pytest.mark.slow
def test_verdict_table_holds_every_number(results, lines):
    found = {line[0]: line for line in lines if line and line[-1] in ("better", "worse")}
    assert found["fused"][-3:] == ["24", "3", "better"]  # pairs, seeds, verdict


@pytest.mark.slow
def test_shows_every_figure(outputs):
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 8
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.slow
def test_leaves_the_folder_of_the_experiment_alone(executed, results):
    assert [path.name for path in results[0].parent.iterdir()] == ["results.csv"]


def test_is_stored_without_outputs():
    require_stored_clean(NOTEBOOK)


def test_one_variant_with_one_seed_runs_through(tmp_path, run_here, capsys):
    write(tmp_path / "results.csv", ["0.25"], [7])
    names = run_here(tmp_path / "results.csv")
    names["drawings"].cleanup()
    assert names["reference"] == "0.25"
    text = capsys.readouterr().out
    assert "There is only one variant" in text and "FIRST and SECOND are both 0.25" in text
    assert text.count("Not answered") == 2 * len(report.QUESTIONS)


def test_a_missing_file_gives_one_sentence(tmp_path, run_here):
    with pytest.raises(SystemExit, match="--preset"):
        run_here(tmp_path / "results.csv")
