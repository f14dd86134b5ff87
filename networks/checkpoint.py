"""Weight files: the only code that knows their formats.

Ours is one dict: format, arch, options, model, optimizer, epoch, step, rng, metrics, env (and
`progress`: the position inside an interrupted epoch, and what the learning rate depends on).  Published files
are flat, or hold their weights under a name such as 'model' or 'state_dict', with or without a prefix such as
`module.`.  A file either loads completely or raises CheckpointError.
"""

import pickle
from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

import networks
from common import CheckpointError, UserError, sha256, written_whole
from networks.base import describe, own_flags, shapes_on_meta

FORMAT = "npr-lab/1"
# Left by torch.nn.DataParallel in nearly every published file; removed without a notice.
PARALLEL_PREFIX = "module."
SHOWN = 8  # names in a message before the rest is counted
COUNTER = "num_batches_tracked"  # of a batch norm; it changes nothing here, and some files leave it out
# Option and value that older versions wrote -> what the value is called now.
RENAMED_VALUES = {("npr_norm", "before"): "imagenet", ("npr_norm", "after"): "none"}


@dataclass
class Loaded:
    """A detector with its weights, and what is known about the file it came from."""

    detector: torch.nn.Module
    arch: str
    options: dict  # the options it was trained with; empty for a published file
    content: dict  # everything else in the file
    path: str
    sha256: str
    notes: list[str] = field(default_factory=list)  # what was assumed, for the script to print

    @property
    def run_name(self):
        """The training run's name, or for a published file its stem and the start of its hash."""
        name = self.options.get("name")
        plain = isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\\" not in name
        return name if plain else f"{Path(self.path).stem}-{self.sha256[:8]}"

    @property
    def marks(self):
        """What every table made with these weights has to say."""
        chosen = "the best epoch was chosen on the test images (--select_on_test), so accuracy is optimistic"
        return (chosen,) if self.options.get("select_on_test") else ()

    @property
    def identity(self):
        """What pins the detector down in a record of results."""
        config = {"detector": self.detector.config} if self.detector.config else {}
        known = {"checkpoint": Path(self.path).name, "checkpoint_sha256": self.sha256, "arch": self.arch}
        return {**known, **self.detector.companions, **config}


# ----- writing and reading files -----


def save(path, detector, **content):
    """Writes a checkpoint so that a crash or a full disk never leaves half a file under `path`."""
    content = {
        "format": FORMAT,
        "arch": detector.arch,
        "calibration": None,
        **content,
        "model": detector.state_dict(),
    }
    try:
        with written_whole(path, binary=True) as file:
            torch.save(content, file)
    except RuntimeError as error:  # torch's archive writer reports a full disk in this way
        raise OSError(f"could not write {path} (is the disk full?): {error}") from error


def read(path):
    """The raw content of a weight file, read without running any code that it may hold.

    CheckpointError says what a file that cannot be used is, and what to do next.
    """
    path = Path(path)
    if not path.is_file():
        hint = " (it is a folder; name a file in it)" if path.is_dir() else ""
        raise CheckpointError(f"no weight file at {path}{hint}")
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except ImportError as error:
        raise CheckpointError(f"{path} needs the safetensors package: pip install safetensors") from error
    except Exception as error:  # torch raises many types here; what matters to the user is the file
        raise CheckpointError(f"{path} {_what_it_is(path, error)}") from error
    if is_own(content) and isinstance(options := content.setdefault("options", {}), dict):
        for (name, before), now in RENAMED_VALUES.items():
            if options.get(name) == before:
                options[name] = now
    return content


def is_own(content):
    """Whether this project wrote the file."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def _read_safetensors(path):
    from safetensors.torch import load_file

    return load_file(path)


def _read_torch(path):
    import numpy as np

    # Plain data that torch's safe loader refuses unless its classes are named; they run no code.
    scalar_types = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdSU"]
    plain = [Namespace, np.dtype, np.ndarray, np.float64(0).__reduce__()[0], *scalar_types]
    with torch.serialization.safe_globals(plain):
        return torch.load(path, map_location="cpu", weights_only=True)


def _what_it_is(path, error):
    """What a file is that torch does not read, and what to do next."""
    with open(path, "rb") as file:
        start = file.read(512).lstrip().lower()
    if not start:
        return "is empty; download or copy it again"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights (a login or a quota of the server); download it again in a browser"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights; fetch them with: git lfs pull"
    if "TorchScript" in str(error):
        return (
            "is a TorchScript program, not weights; save its weights: "
            "torch.save(torch.jit.load(FILE).state_dict(), OUT)"
        )
    foreign = []
    with suppress(Exception):  # a damaged file raises one of the same many types
        foreign = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    if isinstance(error, pickle.UnpicklingError) and foreign:
        return (
            f"holds Python objects besides tensors ({', '.join(foreign[:3])}), which are not loaded because "
            "that could run code; where you trust it, save only the weights: "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], OUT)"
        )
    return f"is not a readable weight file: it is damaged, or of another format ({type(error).__name__})"


# ----- the weights in a file -----


def weights(content, path):
    """The state_dict in a file's content, without what frameworks put around it; see `unwrapped`."""
    return unwrapped(content, path)[0]


def unwrapped(content, path):
    """(state_dict, notices): dicts around the weights and prefixes of their names are taken off.

    A detector's own keys decide which prefix is one, so torch.compile's, Lightning's and others are known
    without a list of them.
    """
    name, state = _state_dict_in(content, path)
    notices = [f"its weights are the entry {name!r}"] if name not in ("", "model", "state_dict") else []
    parallel = PARALLEL_PREFIX if all(name.startswith(PARALLEL_PREFIX) for name in state) else ""
    prefix = min(_prefixes(state), key=len, default=parallel)
    if prefix:
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if prefix.replace(PARALLEL_PREFIX, ""):
        notices.append(f"the prefix {prefix!r} of its entries was taken off")
    for key in [key for key in state if key.endswith(".running_var")]:
        state.setdefault(key.replace("running_var", COUNTER), torch.tensor(0))
    return state, notices


def _state_dict_in(content, path):
    """(name of the entry, the only dict of tensors in a file's content), up to two levels deep."""
    states = dict(_dicts_of_tensors(content))
    if not states:
        reason = type(content).__name__
        if isinstance(content, dict):
            wrong = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
            reason = f"entries that are not tensors: {shorten(wrong)}"
        raise CheckpointError(f"{path} holds no weights: expected a state_dict or a 'model', got {reason}")
    if len(states) > 1:  # a scaler or a second network may be saved as well
        states = {names: state for names, state in states.items() if _prefixes(state)} or states
    depth = min(map(len, states))
    shallow = [names for names in states if len(names) == depth]
    usual = [names for names in shallow if not names or names[-1] in ("model", "state_dict")] or shallow
    if len(usual) > 1:
        entries = "".join(f"[{name!r}]" for name in usual[0])
        raise CheckpointError(
            f"{path} holds several sets of weights ({', '.join(map('.'.join, usual))}); save one of them: "
            f"torch.save(torch.load(FILE){entries}, OUT)"
        )
    return ".".join(usual[0]), dict(states[usual[0]])


def _dicts_of_tensors(content, names=(), depth=2):
    """(names of the entries that lead to it, dict) of every dict of tensors inside a file's content."""
    if not isinstance(content, dict) or not content:
        return
    if all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()):
        yield names, content
    elif depth:
        for key, value in content.items():
            if key != "optimizer":
                yield from _dicts_of_tensors(value, (*names, str(key)), depth - 1)


def _prefixes(state):
    """[prefix] in front of all keys of a detector's signature; [] where no detector's keys are there."""
    detectors = [networks.get(name) for name in networks.names()]
    prefixes = set()
    for detector in detectors:
        if detector.signature:
            first = detector.signature[0]
            ends = {key.removesuffix(first) for key in state if key.endswith(first)}
            prefixes |= {end for end in ends if state.keys() >= {end + name for name in detector.signature}}
    # The trunk of another detector has its names behind the name of the trunk, which is not a prefix.
    trunks = tuple({detector.imagenet[1] for detector in detectors} - {""})
    return [prefix for prefix in prefixes if not prefix.endswith(trunks)]


def load_weights(detector, state, path):
    """Strict load with an error that names the differing keys."""
    require_fit(detector, state, path)
    detector.load_state_dict(state)


def load_companion(network, state, path, what, hint=""):
    """Strict load of a network that is not a detector: its output is not checked as scores are."""
    require_fit(network, state, path, what, hint)
    require_finite(state, path)
    network.load_state_dict(state)


def require_finite(state, path):
    """CheckpointError where weights are NaN or infinite."""
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path} holds NaN or infinite values, first in {broken[0]}")


def require_fit(network, state, path, what=None, hint=""):
    """CheckpointError with the differing keys unless a state_dict has the network's keys and shapes.

    what: the network in words, for one that is not a detector; hint: ends the message.
    """
    own = network.state_dict()
    differing = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [name for name in own if name in state and own[name].shape != state[name].shape],
    }
    if any(differing.values()):
        lists = "; ".join(f"{len(keys)} {how}: {shorten(keys)}" for how, keys in differing.items() if keys)
        what = what or f"detector {network.arch!r}"
        raise CheckpointError(f"{path} does not fit {what}: {lists}{hint}")


# ----- detectors of files -----


def load(path, arch=None, opt=None):
    """Builds the detector of a weight file and loads it strictly.

    Args:
        arch: detector name; needed only where the keys of a published file do not decide.
        opt: parsed options that describe the detector of a published file; ours carry their own.
    """
    content, given = read(path), vars(opt) if opt is not None else {}
    loaded = (load_own if is_own(content) else load_published)(content, path, arch, given)
    loaded.detector.load_companions()
    recorded = content.get("companions", {}) if is_own(content) else {}
    for name, digest in loaded.detector.companions.items():
        loaded.notes.append(f"{name} {digest[:12]}")
        if recorded.get(name, digest) != digest:
            loaded.notes.append(f"notice: {name} is not that of the training")
    return loaded


def load_own(content, path, arch, given):
    """Loaded from a file that train.py wrote: it knows its detector; flags may repeat that, not change it."""
    named, options = content.get("arch"), content.get("options", {})
    if named not in networks.names() or not isinstance(options, dict):
        known = ", ".join(networks.names())
        raise CheckpointError(f"{path} is a {FORMAT} file of the detector {named!r}; known: {known}")
    if arch not in (None, named):
        raise CheckpointError(f"{path} holds a {named!r} detector, not --arch {arch}")
    flags = flags_of(named, given)
    detector = _built(path, named, {**options, **flags})
    trained = _built(path, named, options, meta=True) if flags else detector
    if detector.config != trained.config:
        asked = f"the flags, which ask for {describe(detector)}, cannot change that"
        raise CheckpointError(f"{path} was trained as {describe(trained)}; {asked}: leave them out")
    load_weights(detector, weights(content, path), path)
    return Loaded(detector, named, options, content, str(path), sha256(path))


def load_published(content, path, arch, given):
    """Loaded from a published file: its keys decide which detector it is, or flags where they do not."""
    state, notices = unwrapped(content, path)
    named, published = recognise(state, path, arch, given)
    detector = _built(path, named, {**published.options, **flags_of(named, given)})
    load_weights(detector, published.entries, path)
    assumed = f"{path} is a published file; taken as detector {describe(detector)}"
    notes = [f"{assumed} (where the file does not say, --arch {named} and its flags do)"]
    notes += [*notices, *filter(None, [published.notice])]
    return Loaded(detector, named, {}, content, str(path), sha256(path), notes)


def recognise(state, path, arch, given):
    """(name, Published) of the only detector that a foreign state_dict fits; CheckpointError without one."""
    candidates = [arch] if arch is not None else networks.names()
    try:
        published = {name: published_as(name, state, given) for name in candidates}
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from error
    fitting = {name: known for name, known in published.items() if known is not None}
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    if fitting:
        raise CheckpointError(f"{path} fits several detectors; name one with --arch {{{','.join(fitting)}}}")
    return _refuse_unknown(state, path, candidates)


def published_as(name, state, given):
    """Published if a state_dict fits the detector called `name`, else None; cheap where keys are missing."""
    detector = networks.get(name)
    if not state.keys() >= {*detector.signature}:
        return None
    return detector.from_published(state, flags_of(name, given))


def flags_of(arch, given):
    """The detector's own flags among those given."""
    own = vars(own_flags(networks.get(arch)))
    return {name: value for name, value in given.items() if name in own}


def _built(path, arch, options, meta=False):
    """The detector that options describe; on the meta device without memory or random numbers."""
    try:
        with torch.device("meta" if meta else "cpu"):
            return networks.get(arch).from_options(Namespace(**options))
    except UserError as error:
        raise CheckpointError(f"{path}, as it was trained, does not go with these flags: {error}") from error


def _refuse_unknown(state, path, candidates):
    """Says how a foreign file differs from the closest detector, or what it holds."""
    differing = {name: len(state.keys() ^ shapes_on_meta(networks.get(name)).keys()) for name in candidates}
    closest = min(differing, key=differing.get)
    if len(candidates) == 1 or differing[closest] < len(state) / 2:
        with torch.device("meta"):
            require_fit(networks.get(closest)(), state, path)  # says exactly where it differs
    entries = f"it has {len(state)} entries: {shorten(list(state))}"
    raise CheckpointError(f"{path} fits no known detector ({', '.join(candidates)}); {entries}")


def shorten(names):
    """The first few names in words, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
