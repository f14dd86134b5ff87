"""Start weights of a run: a file like the detector, or the layers that match of a file or of ImageNet's."""

import hashlib
from pathlib import Path

import torch
import torchvision

from common import CheckpointError
from networks import checkpoint
from networks.base import Detector

SHOWN = 6  # entries named in a notice before the rest is counted


def start(detector, opt):
    """Gives a new detector the start weights that the options ask for; returns the notice, "" for none.

    --model_path is strict; --init_weights and --pretrained take what matches by name and shape.
    """
    if opt.model_path:
        content = checkpoint.read(opt.model_path)
        state, converted = checkpoint.in_our_convention(content, opt.model_path, detector.arch, vars(opt))
        checkpoint.load_weights(detector, state, opt.model_path)
        return "\n".join(filter(None, [f"starts from the weights of {opt.model_path}", converted]))
    if opt.init_weights:
        content = checkpoint.read(opt.init_weights)
        state, converted = checkpoint.in_our_convention(content, opt.init_weights, detector.arch, vars(opt))
        return "\n".join(filter(None, [load_matching(detector, state, opt.init_weights), converted]))
    if opt.pretrained:
        name = detector.imagenet
        return load_matching(detector, imagenet(name), f"ImageNet weights (torchvision's {name})")
    return ""


def load_matching(detector, state, source):
    """Loads the entries of state that match by name and shape; returns what matched and what did not.

    CheckpointError when not one weight matches: a run from random weights must not look like another.
    """
    own = detector.state_dict()
    state = in_place(detector, state)
    matching = {
        name: value for name, value in state.items() if name in own and own[name].shape == value.shape
    }
    broken = [name for name, value in matching.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{source} holds values that are no numbers, first in {broken[0]}")
    trained = {name for name, _ in detector.named_parameters()}
    if not trained & matching.keys():
        raise CheckpointError(f"no layer of {source} has name and shape of one of {detector.arch!r}")
    detector.load_state_dict(matching, strict=False)
    reshaped = [
        f"{name} {tuple(state[name].shape)} -> {tuple(own[name].shape)}"
        for name in own
        if name in state and name not in matching
    ]
    fixed = {name for name, value in detector.named_parameters() if not value.requires_grad}
    lists = (
        ("random, since of another shape there", reshaped),
        ("random, since absent there", [name for name in own if name not in state and name not in fixed]),
        ("not taken over", [name for name in state if name not in own]),
    )
    lines = [f"starts from {len(matching)} of {len(own)} entries, those that match, of {source}"]
    return "\n".join(lines + [f"  {len(names)} {kind}: {_named(names)}" for kind, names in lists if names])


def in_place(detector, state):
    """The entries of state under the detector's names, where a plain trunk's are a part of them."""
    own, prefix = detector.state_dict(), detector.trunk_prefix
    state = detector.renamed(state)
    return {
        name if name in own or prefix + name not in own else prefix + name: value
        for name, value in state.items()
    }


def imagenet(name=Detector.imagenet):
    """State dict of torchvision's ImageNet weights of that name; fetched once, then kept by torch.hub."""
    weights = torchvision.models.get_weight(name)
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    stem, _, start_of_hash = file.stem.rpartition("-")
    if file.is_file() and stem:
        with open(file, "rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if not found.startswith(start_of_hash):
            raise CheckpointError(f"{file} is damaged (sha256 {found[:8]}); remove it to fetch it again")
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a hash that is not the published one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"--pretrained could not fetch {weights.url} ({reason}); put it at {file}, or name it with "
            "--init_weights, or start from random weights with --no_pretrained"
        ) from error


def _named(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
