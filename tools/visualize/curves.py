"""Curves of results: ROC and precision-recall from scores.csv, loss and accuracy from train.csv."""

import numpy as np

from common import UserError, read_table
from util.pictures import PALE, RULE, canvas, style
from util.results import read_scores

UNIT = (-0.01, 1.01)  # limits of an axis from 0 to 1


def table_in(folder, name, expected):
    """The path of a table in a folder; UserError where there is none."""
    if not (folder / name).is_file():
        raise UserError(f"{folder} holds no {name}; expected {expected}")
    return folder / name


def draw_curves(opt):
    """ROC (left) and precision-recall (right), one line per generator."""
    figure, ((roc, pr),) = canvas(1, 2, width=10, height=4.6)
    rows = read_scores(table_in(opt.folder, "scores.csv", "results/<name>/<protocol>"))
    add_curves(roc, pr, rows)
    return figure


def add_curves(roc, pr, rows):
    """Draws the curves of rows of scores.csv on two axes, one line per generator."""
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

    for number, name in enumerate(dict.fromkeys(row[1] for row in rows)):
        labels, scores = np.array([row[2:4] for row in rows if row[1] == name]).T
        if len(set(labels)) < 2:
            continue  # a one-sided folder has no curve; the table says so
        line = style(number) | {"marker": None}
        false_positive, true_positive, _ = roc_curve(labels, scores)
        area = 100 * auc(false_positive, true_positive)
        roc.plot(false_positive, true_positive, label=f"{name}  AUC {area:.1f}", **line)
        precision, recall, _ = precision_recall_curve(labels, scores)
        area = 100 * average_precision_score(labels, scores)
        pr.step(recall, precision, where="post", label=f"{name}  AP {area:.1f}", **line)
    roc.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC", xlim=UNIT, ylim=UNIT)
    pr.set(xlabel="recall", ylabel="precision", title="precision-recall", xlim=UNIT, ylim=UNIT)
    for axis, corner in ((roc, "lower right"), (pr, "lower left")):
        axis.grid(color=RULE)
        axis.legend(fontsize=8, loc=corner, **PALE)


def draw_training(opt):
    """Training loss (left) and accuracies (right) over epochs; the best epoch is marked."""
    rows = read_table(table_in(opt.folder, "train.csv", "checkpoints/<name>"), ("epoch", "loss", "acc"))
    if not rows:
        raise UserError(f"{opt.folder / 'train.csv'} holds no epoch yet")
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    figure, ((loss, accuracy),) = canvas(1, 2, width=10, height=4)
    epochs = column["epoch"] + 1
    loss.plot(epochs, column.get("loss_bce", column["loss"]), marker="o")
    loss.set(xlabel="epoch", ylabel="binary cross-entropy", title="training loss", ylim=(0, None))
    accuracy.plot(epochs, 100 * column["acc"], marker="o", label="training")
    if "val_acc" in column:
        best = np.lexsort((-epochs, column["val_ap"], column["val_acc"]))[-1]
        accuracy.plot(epochs, 100 * column["val_acc"], marker="o", label="validation")
        accuracy.plot(epochs, 100 * column["val_ap"], marker=".", linestyle="--", label="validation AP")
        accuracy.axvline(epochs[best], color="0.8", linewidth=6, zorder=0, label="best epoch")
    accuracy.set(xlabel="epoch", ylabel="%", title="accuracy", ylim=(None, 101))
    for axis in (loss, accuracy):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(color=RULE)
    accuracy.legend(fontsize=9, frameon=False)
    return figure
