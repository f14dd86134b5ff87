"""Start weights of a run: a file of the same detector, or the matching layers of a file or of ImageNet's."""

from pathlib import Path

import torch

from common import CheckpointError, sha256
from networks import checkpoint
from networks.lnp_trunks import torchvision_names
from networks.variants import without_unused


def start(detector, opt):
    """Gives a new detector the start weights that the options ask for; returns the notice, "" for none.

    --model_path is strict; --init_weights and --pretrained load what matches by name and shape.
    """
    if opt.model_path:
        state, notices = in_our_convention(opt.model_path, detector.arch, vars(opt))
        checkpoint.load_weights(detector, state, opt.model_path)
        return "\n".join([f"starts from the weights of {opt.model_path}", *notices])
    if opt.init_weights:
        state, notices = in_our_convention(opt.init_weights, detector.arch, vars(opt))
        return "\n".join([load_matching(detector, state, opt.init_weights), *notices])
    if opt.pretrained:
        name = detector.imagenet[0]
        return load_matching(detector, imagenet(name), f"ImageNet weights (torchvision's {name})")
    return ""


def in_our_convention(path, arch, given):
    """(a file's state_dict with fake = 1, notices); the flags given for a detector describe a file of it."""
    content = checkpoint.read(path)
    state, notices = checkpoint.unwrapped(content, path)
    if checkpoint.is_own(content):
        return state, notices
    try:
        _, published = checkpoint.recognise(state, path, None, checkpoint.flags_of(arch, given))
    except CheckpointError:  # of no detector, or it is unclear how it was built
        if any(name.endswith("fc.weight") and len(value) == 1 for name, value in state.items()):
            notices.append("the file fits no known detector; nothing shows whether it scores real above 0")
        return state, notices
    notices += filter(None, [published.notice])
    return without_unused(published.entries, published.options), notices


def load_matching(detector, state, source):
    """Loads the entries of state that match by name and shape; returns what matched and what did not.

    CheckpointError when not one weight matches: a run from random weights must not look like another.
    """
    own, state = detector.state_dict(), _under_own_names(detector, state)
    missing, unexpected, reshaped = checkpoint.misfits(detector, state).values()
    matching = {name: state[name] for name in own if name in state and name not in reshaped}
    checkpoint.require_finite(matching, source)
    parameters = dict(detector.named_parameters())
    if not parameters.keys() & matching.keys():
        raise CheckpointError(f"no layer of {source} has name and shape of one of {detector.arch!r}")
    detector.load_state_dict(matching, strict=False)
    shapes = [f"{name} {tuple(state[name].shape)} -> {tuple(own[name].shape)}" for name in reshaped]
    fixed = {name for name, value in parameters.items() if not value.requires_grad}
    lists = {
        "random, because of another shape there": shapes,
        "random, because absent there": [name for name in missing if name not in fixed],
        "not used": unexpected,
    }
    lines = [f"starts from {len(matching)} of {len(own)} entries, those that match, of {source}"]
    lines += [f"  {len(names)} {why}: {checkpoint.shorten(names)}" for why, names in lists.items() if names]
    return "\n".join(lines)


def _under_own_names(detector, state):
    """The entries of state under the detector's names, where a plain trunk is a part of the detector."""
    own, prefix = detector.state_dict(), detector.imagenet[1]
    return {
        name if name in own or prefix + name not in own else prefix + name: value
        for name, value in torchvision_names(state).items()
    }


def imagenet(name):
    """State dict of torchvision's ImageNet weights of that name; fetched once, then kept by torch.hub."""
    from torchvision.models import get_weight  # here, since it takes a second to import

    weights = get_weight(name)
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    stem, _, start_of_hash = file.stem.rpartition("-")
    if file.is_file() and stem and not (digest := sha256(file)).startswith(start_of_hash):
        raise CheckpointError(f"{file} is damaged (sha256 {digest[:8]}); remove it to fetch it again")
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a hash that is not the published one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"--pretrained could not fetch {weights.url} ({reason}); put it at {file}, or name it with "
            "--init_weights, or start from random weights with --no_pretrained"
        ) from error
