"""Pictures of a report: curves as SVG, thumbnails as PNG, each as a data: URI."""

import base64
import io
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import networks
from common import UserError
from tools.visualize import robustness as robust
from tools.visualize.cam import prepared
from tools.visualize.curves import UNIT, add_curves
from util.metrics import ECE_BINS, bins_of
from util.pictures import COLOURS, PALE, RULE, around_grey, canvas, grad_cam, npr_map, overlay, style

MOST_LINES = 6  # generators in a figure: more of them cannot be told apart
SIDE = 192  # pixels of a thumbnail: the centre, unscaled, since scaling would blur an NPR map
WIDTH, HEIGHT = 4.2, 3.6  # inches of a figure


def uri(buffer, kind):
    """A data: URI of a buffer of that media type."""
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def svg(figure):
    """A figure as a data: URI; equal figures give equal ones."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "report"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return uri(buffer, "image/svg+xml")


def png(picture):
    """The centre of uint8 pixels of torch (3, H, W), or of an array (H, W, 3) in [0, 1], as a data: URI."""
    if torch.is_tensor(picture):
        picture = picture.permute(1, 2, 0).numpy() / 255
    top, left = (max(0, (side - SIDE) // 2) for side in picture.shape[:2])
    centre = picture[top : top + SIDE, left : left + SIDE]
    buffer = io.BytesIO()
    Image.fromarray((255 * centre).round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return uri(buffer, "image/png")


# ----- curves -----


def curves(found):
    """[(name, description, URI)] of the figures of an evaluation."""
    view, rows = found.first
    areas = {row["generator"]: row["auc"] for row in rows[:-1] if not math.isnan(row["auc"])}
    lowest = sorted(areas, key=areas.get)[:MOST_LINES]
    if not lowest:
        return [reliability(found)]
    (roc, ((roc_axis,),)), (pr, ((pr_axis,),)) = (canvas(1, 1, WIDTH, HEIGHT) for _ in range(2))
    add_curves(roc_axis, pr_axis, [row for row in found.scores[view] if row[1] in lowest])
    which = "all generators" if len(lowest) == len(areas) else f"the {len(lowest)} of lowest AUC"
    return [
        ("ROC", f"ROC curves of {which}", svg(roc)),
        ("precision-recall", f"Precision-recall curves of {which}", svg(pr)),
        reliability(found),
    ]


def reliability(found):
    """Share of fakes by score, in the bins of the calibration error; below it how many images a bin has."""
    scores = found.scores[found.first[0]]
    labels, values, logits = (np.array([row[i] for row in scores]) for i in (2, 3, 4))
    figure, ((axis,), (counts,)) = canvas(2, 1, WIDTH, HEIGHT, sharex=True, height_ratios=(3, 1))
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
    kinds = {"score": values}
    if found.calibration:
        kinds["calibrated"] = found.calibration.probability(logits)
    for number, (name, scored) in enumerate(kinds.items()):
        bins = bins_of(scored)
        images = np.bincount(bins, minlength=ECE_BINS)
        used = images > 0
        means = [np.bincount(bins, part, ECE_BINS)[used] / images[used] for part in (scored, labels)]
        axis.plot(*means, label=name, markersize=5, **style(number))
        centres = (np.arange(ECE_BINS) + 0.5 + 0.4 * number) / ECE_BINS
        counts.bar(centres[used], images[used], 0.4 / ECE_BINS, color=COLOURS[number])
    axis.set(ylabel="share of fakes", title="reliability", xlim=UNIT, ylim=(-0.04, 1.04))
    counts.set(xlabel="score", ylabel="images", yscale="log", ylim=(0.5, None))
    axis.grid(color=RULE)
    if len(kinds) > 1:
        axis.legend(fontsize=8, **PALE)
    text = f"Reliability over all images in {ECE_BINS} bins: a calibrated score lies on the diagonal"
    return "reliability", text, svg(figure)


def robustness(protocol, evaluations):
    """[(name, description, URI)] of the accuracy under each family of views, a line per evaluation."""
    shared = [view for view in evaluations[0].rows if all(view in one.rows for one in evaluations)]
    if len(shared) < 2 or shared[0].steps or any(one.metric != "bal_acc" for one in evaluations):
        return []
    names = robust.names_of([one.folder.resolve() for one in evaluations])
    measured = {
        name: {view: robust.accuracy(one.scores[view], one.folder, one.threshold) for view in shared}
        for name, one in zip(names, evaluations, strict=True)
    }
    drawn = []
    for title, views in robust.families_of(shared).items():
        panel = robust.figure_of({title: views}, measured, protocol)
        text = f"{protocol}: balanced accuracy under {', '.join(map(str, views))}"
        drawn.append((f"robustness, {title}", text, svg(panel)))
    return drawn


# ----- the most wrong images -----


def most_wrong(found, loaded, dataroot, number):
    """([(title, [(what it shows, URI)])], notices) of the highest-scored reals and lowest-scored fakes."""
    npr, shown, notices = networks.get("npr")(), [], {}
    scores = sorted(found.scores[found.first[0]], key=lambda row: row[4])
    reals, fakes = ([row for row in scores if row[2] == label] for label in (0, 1))
    for path, generator, label, score, _ in [*reals[::-1][:number], *fakes[:number]]:
        said, is_of = ("fake" if score > found.threshold else "real"), ("real", "fake")[label]
        pictures = []
        try:
            pixels = prepared(located(found, dataroot, path), loaded)
            pictures += [("image", png(pixels)), ("NPR map", png(around_grey(npr_map(npr, pixels))))]
            evidence, _ = grad_cam(loaded.detector, pixels)
            pictures.append(("Grad-CAM", png(overlay(pixels, evidence))))
        except UserError as error:  # no such file, a bad image, noise of 16 bits, or no package grad-cam
            notices[str(error)] = None
        if pictures:
            shown.append((f"{path}: {is_of} of {generator}, score {score:.3f}: called {said}", pictures))
    return shown, list(notices)


def located(found, dataroot, path):
    """The file of a path of scores.csv below --dataroot, which is that of val.py or of test.py; UserError."""
    row = found.meta.get("protocol_row", {})
    files = [Path(dataroot, root, path) for root in ("", *row.get("roots", ()), *row.get("borrowed", ()))]
    if file := next(filter(Path.is_file, files), None):
        return file
    raise UserError(f"some of these images are not below {dataroot}")
