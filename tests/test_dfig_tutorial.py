"""dfig_tutorial.ipynb runs through with random weights, says what is random, and is stored clean."""

import base64
import re
import shlex
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import ROOT, require_stored_clean
from PIL import Image

import networks
from networks import checkpoint
from options import PredictOptions, TestOptions, TrainOptions

NOTEBOOK = ROOT / "dfig_tutorial.ipynb"
SETTINGS = ("FACES", "SAM", "SAM_TYPE", "CYCLEISP", "CLASSIFIER", "ARCH", "TRAIN_MODE", "SIDE")
PARAMETERS = {
    "ResNet-50": (23_516_475, 23_516_976, 23_516_976),
    "MobileNetV2": (2_225_851, 2_226_352, 2_226_352),
}
SCRIPTS = {"train.py": TrainOptions, "test.py": TestOptions, "predict.py": PredictOptions}

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("segment_anything")


def fresh_settings(patch, **given):
    """The notebook's environment variables: those given and no others."""
    for name in SETTINGS:
        patch.delenv(f"DFIG_{name}", raising=False)
    for name, value in given.items():
        patch.setenv(f"DFIG_{name}", str(value))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """(the notebook with its outputs, its working folder, its temporary one), run by a kernel of its own."""
    nbclient = pytest.importorskip("nbclient")
    kernelspec = pytest.importorskip("ipykernel.kernelspec")
    folder, work, temporary = (tmp_path_factory.mktemp(name) for name in ("kernel", "work", "temporary"))
    kernelspec.write_kernel_spec(folder / "kernels" / "python3")  # names sys.executable
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):  # nothing of the user's counts
            patch.setenv(name, str(folder))
        patch.setenv("NPR_ROOT", str(ROOT))
        patch.setenv("TMPDIR", str(temporary))
        fresh_settings(patch, SIDE=64)
        client = nbclient.NotebookClient(
            nbformat.read(NOTEBOOK, 4), timeout=300, resources={"metadata": {"path": str(work)}}
        )
        return client.execute(), work, temporary


@pytest.fixture(scope="module")
def outputs(executed):
    return [output for cell in executed[0].cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.fixture(scope="module")
def text(outputs):
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.fixture
def run_here(monkeypatch, tmp_path):
    """Runs the code cells in this process, without a kernel; returns their names."""
    pytest.importorskip("IPython")

    def run(**given):
        monkeypatch.chdir(ROOT / "util")  # the notebook looks for the root above the folder it runs in
        monkeypatch.delenv("NPR_ROOT", raising=False)
        monkeypatch.setattr(sys, "path", [*sys.path])
        fresh_settings(monkeypatch, **given)
        names = {"__name__": "__main__"}
        for cell in nbformat.read(NOTEBOOK, 4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, f"cell {cell.id}", "exec"), names)
        return names

    return run


@pytest.mark.slow
def test_runs_without_an_error_or_a_warning(outputs, text):
    assert not [output for output in outputs if output.output_type == "error"]
    assert "Warning" not in text and text.count("2 of 2 files written") == 3


@pytest.mark.slow
def test_says_what_is_random(text):
    notice = "RANDOM WEIGHTS. The steps below are right, but these mean nothing:"
    assert f"{notice}\n  masks\n  noise patterns\n  scores\n" in text
    assert "Random weights (masks, noise patterns, scores): no verdict." in text


@pytest.mark.slow
def test_counts_the_published_parameters(text):
    for trunk, counts in PARAMETERS.items():
        for mode, count in enumerate(counts):
            assert f"{trunk}, mode {mode}: {count:,} parameters\n" in text


@pytest.mark.slow
def test_tables_show_wrapping_and_attention(outputs):
    html = "".join(output.data.get("text/html", "") for output in outputs if "data" in output)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", html, re.S)]
    assert ["-20", "0", "-2,570", "30,198"] in rows and ["1", "255", "128", "32,896"] in rows
    means = {row[0]: row[1:] for row in rows if row and row[0].endswith((", before", ", after"))}
    same = [
        [a == b for a, b in zip(means[f"mode {mode}, before"], means[f"mode {mode}, after"], strict=True)]
        for mode in range(3)
    ]
    assert same == [[True] * 3 + [False] * 2, [False] * 5, [True] * 5]


@pytest.mark.slow
def test_scores_every_face(outputs, text):
    html = "".join(output.data.get("text/html", "") for output in outputs if "data" in output)
    assert re.search(r">astronaut.png</td>\s*<td[^>]*>0\.\d{6}</td>", html) and ">cat.png<" in html
    assert "fake = 1: a score above 0.5 says fake" in text


@pytest.mark.slow
def test_shows_every_figure(outputs):
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 5
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.slow
def test_leaves_no_file(executed):
    _, work, temporary = executed
    assert list(work.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_is_stored_without_outputs():
    require_stored_clean(NOTEBOOK)


def test_its_commands_parse():
    from tools.extract import __main__ as extract
    from tools.visualize import __main__ as visualize

    [cell] = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.id == "commands"]
    commands = re.search(r"```bash\n(.*?)```", cell.source, re.S)[1].splitlines()
    assert len(commands) == 6
    for command in commands:
        python, *words = shlex.split(command)
        assert python == "python"
        if words[0] == "-m":
            {"tools.extract": extract, "tools.visualize": visualize}[words[1]].parse(words[2:])
        else:
            SCRIPTS[words[0]]().parse(words[1:])


@pytest.mark.slow
def test_own_faces_and_an_own_classifier(tmp_path, run_here, capsys):
    rng = np.random.default_rng(0)
    for name in ("faces/one.v2.png", "faces/deeper/two.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "faces").rglob("*")}
    torch.manual_seed(0)
    options = {"arch": "mobilev2", "train_mode": 1, "lnp_encoding": "signed"}
    weights = tmp_path / "classifier.pth"
    checkpoint.save(weights, networks.create(Namespace(**options)), options=options)

    names = run_here(FACES=tmp_path / "faces", CLASSIFIER=weights)
    text = capsys.readouterr().out
    assert "2 of 2 faces" in text and "mobilev2, source signed" in text
    assert "mean nothing:\n  masks\n  noise patterns\n" in text and "  scores\n" not in text
    assert sorted(names["result"]["face"]) == ["deeper/two.png", "one.v2.png"]
    assert names["result"]["score"].between(0, 1).all()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "faces").rglob("*")}
    assert not names["WORK"].exists()


def test_a_missing_file_gives_one_sentence(tmp_path, run_here):
    with pytest.raises(SystemExit, match=r"absent\.pth"):
        run_here(SAM=tmp_path / "absent.pth")
