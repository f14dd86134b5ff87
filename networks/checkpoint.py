"""Weight files: the only code that knows their formats.

Ours is one dict: format, arch, options, model, optimizer, epoch, step, rng, metrics, calibration, env (and
`progress`: the place inside an interrupted epoch, and what the learning rate depends on).  Published files
come flat, as {'model': ...} or {'state_dict': ...}, with or without a `module.` prefix.  A file either loads
completely or raises CheckpointError.
"""

import os
import pickle
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

import torch

import networks
from common import CheckpointError, UserError, sha256

FORMAT = "npr-lab/1"
WRAPPERS = ("model", "state_dict")  # where published files keep their weights
PARALLEL_PREFIX = "module."  # left behind by torch.nn.DataParallel
SHOWN_KEYS = 8


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
        known = {"checkpoint": Path(self.path).name, "checkpoint_sha256": self.sha256, "arch": self.arch}
        built = self.detector.configuration
        return {**known, **self.detector.companions, **({"detector": built} if built else {})}


def save(path, detector, **content):
    """Writes a checkpoint so that a crash or a full disk never leaves half a file under `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "arch": detector.arch, "calibration": None, **content}
    content["model"] = detector.state_dict()
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except RuntimeError as error:  # torch's archive writer reports a full disk in this way
        raise OSError(f"could not write {path} (is the disk full?): {error}") from error
    finally:
        part.unlink(missing_ok=True)


def read(path):
    """The raw content of a weight file, read without running any code that it may hold."""
    path = Path(path)
    if not path.is_file():
        hint = " (it is a folder; name a file in it)" if path.is_dir() else ""
        raise CheckpointError(f"no weight file at {path}{hint}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a readable weight file: it is damaged, or holds Python objects beside tensors, "
            "which are not loaded because that could run code"
        ) from error
    except Exception as error:  # torch raises many kinds here; all mean the same to the user
        reason = "it is damaged, or of no torch format" if path.stat().st_size else "it is empty"
        raise CheckpointError(
            f"{path} is not a readable weight file: {reason} ({type(error).__name__})"
        ) from error


def load(path, arch=None, opt=None):
    """Builds the detector of a weight file and loads it strictly.

    Args:
        arch: detector name; needed only where the keys of a published file do not decide.
        opt: parsed options that describe the detector of a published file; ours carry their own.
    """
    content = read(path)
    state = weights(content, path)
    own = is_own(content)
    given = vars(opt) if opt is not None else {}
    found, implied = _described(content, path) if own else _recognise(state, arch, path, given)
    if arch is not None and arch != found:
        raise CheckpointError(f"{path} holds a {found!r} detector, not --arch {arch}")
    kind = networks.get(found)
    detector = _built_as_asked(kind, implied, _flags_of(found, given), path)
    notes = []
    if not own:
        state, converted = kind.from_published(state)
        assumed = f"{path} is a published file; taken as detector {found!r}, {detector.describe()}"
        notes = [f"{assumed} (where the file does not say, --arch {found} and its flags do)", converted]
    load_weights(detector, state, path)
    detector.ready()
    changed = (
        [
            name
            for name, value in detector.companions.items()
            if content.get("companions", {}).get(name, value) != value
        ]
        if own
        else []
    )
    notes += [f"{name} {value[:12]}" for name, value in detector.companions.items()]
    notes += [f"notice: {name} is not that of the training" for name in changed]
    options = implied if own else {}
    return Loaded(detector, found, options, content, str(path), sha256(path), list(filter(None, notes)))


def in_our_convention(content, path, arch=None, given=None):
    """(a file's state_dict with fake = 1, a notice or ""): a published file may have it otherwise.

    arch, given: the detector that is to start from it; its {flag: value} hold for a file of its kind.
    """
    state = weights(content, path)
    if is_own(content):
        return state, ""
    for kind in map(networks.get, networks.names()):
        try:
            flags = _flags_of(arch, given or {}) if kind.arch == arch else {}
            fits = kind.recognise(state, flags) is not None
        except UserError:  # of this kind, but not of one that can be told
            fits = False
        if fits:
            return kind.from_published(state)
    one_logit = any(name.endswith("fc.weight") and len(value) == 1 for name, value in state.items())
    unknown = "no file that is known whole: had its last layer the opposite sign, this could not be seen"
    return state, unknown if one_logit else ""


def load_weights(detector, state, path):
    """Strict load with an error that names the differing keys."""
    require_fit(detector, state, path)
    detector.load_state_dict(state)


def load_companion(network, state, path, what, hint=""):
    """Strict load of a network that is no detector: what it gives is not looked at as scores are."""
    require_fit(network, state, path, what, hint)
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path} holds values that are no numbers, first in {broken[0]}")
    network.load_state_dict(state)


def require_fit(network, state, path, what=None, hint=""):
    """CheckpointError with the differing keys unless a state_dict has the network's keys and shapes.

    what: the network in words, for one that is no detector; hint: ends the message.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    reshaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or unexpected or reshaped:
        kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        lists = "; ".join(f"{len(keys)} {kind}: {_shorten(keys)}" for kind, keys in kinds if keys)
        what = what or f"detector {network.arch!r}"
        raise CheckpointError(f"{path} does not fit {what}: {lists}{hint}")


def weights(content, path):
    """The state_dict inside any known structure, without wrapper and `module.` prefix."""
    state = content
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state:
        raise CheckpointError(
            f"{path} holds no weights: expected a state_dict or {{'model': ...}}, "
            f"got {type(content).__name__}"
        )
    strangers = [
        str(name)
        for name, value in state.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if strangers:
        raise CheckpointError(f"{path} holds entries that are no tensors: {_shorten(strangers)}")
    if all(name.startswith(PARALLEL_PREFIX) for name in state):
        state = {name[len(PARALLEL_PREFIX) :]: value for name, value in state.items()}
    return state


def is_own(content):
    """Whether this project wrote the file."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def _described(content, path):
    """(arch, options) that a file of ours names."""
    arch, options = content.get("arch"), content.get("options", {})
    if arch not in networks.names() or not isinstance(options, dict):
        raise CheckpointError(
            f"{path} says it is a {FORMAT} file, but names no detector of this version: "
            f"arch {arch!r}, known: {', '.join(networks.names())}"
        )
    return arch, options


def _flags_of(arch, given):
    """The detector's own flags among those given."""
    own = vars(networks.get(arch).flags(Namespace()))
    return {name: value for name, value in given.items() if name in own}


def _built_as_asked(kind, implied, flags, path):
    """The detector that a file's options and the flags describe.

    The file knows what its weights were trained for; flags may repeat that, not change it.
    """
    try:
        asked = kind.from_options(Namespace(**{**implied, **flags}))
    except UserError as error:
        raise CheckpointError(f"{path}, as it was trained, does not go with these flags: {error}") from error
    if not flags:
        return asked
    with torch.device("meta"):
        trained = kind.from_options(Namespace(**implied))
    if asked.configuration != trained.configuration:
        raise CheckpointError(
            f"{path} was trained as {trained.describe()}; the flags, which ask for {asked.describe()}, "
            "cannot change that: leave them out"
        )
    return asked


def _recognise(state, arch, path, given):
    candidates = [arch] if arch is not None else networks.names()
    try:
        fitting = {name: networks.get(name).recognise(state, _flags_of(name, given)) for name in candidates}
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from error
    fitting = {name: implied for name, implied in fitting.items() if implied is not None}
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    if len(fitting) > 1:
        raise CheckpointError(f"{path} fits several detectors; name one with --arch {{{','.join(fitting)}}}")
    with torch.device("meta"):
        built = {name: networks.get(name)() for name in candidates}
    differing = {name: len(state.keys() ^ one.state_dict().keys()) for name, one in built.items()}
    closest = min(differing, key=differing.get)
    if len(candidates) == 1 or differing[closest] < len(state) / 2:
        require_fit(built[closest], state, path)  # says exactly where it differs
    raise CheckpointError(
        f"{path} fits no known detector ({', '.join(candidates)}); it has {len(state)} entries: "
        f"{_shorten(list(state))}"
    )


def _read_safetensors(path):
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(f"{path} needs the safetensors package: pip install safetensors") from error
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type, which need not be importable
        raise CheckpointError(f"{path} is not a readable safetensors file ({error})") from error


def _shorten(keys):
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more
