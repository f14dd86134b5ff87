"""Weight files: the only code that knows their formats.

Ours is one dict: format, arch, options, model, optimizer, epoch, step, rng, metrics, env and `progress` (the
position inside an interrupted epoch, and what the learning rate depends on).  Published files are flat, or
hold their weights under a name such as 'model', with or without a prefix such as `module.`.  A file either
loads completely or raises CheckpointError.
"""

import json
from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import networks
from common import CheckpointError, UserError, file_path, require_package, sha256, written_whole
from networks.base import Published, describe, own_flags
from networks.fuse import for_evaluation

FORMAT = "npr-lab/1"
# What --model_path calls the weights of this repository.
SHIPPED = {"open": Path(__file__).resolve().parents[1] / "weights" / "open.safetensors"}
ABOUT_SHIPPED = "what it finds and what it misses: weights/MODEL_CARD.md; its verdict is evidence, not proof"
PARALLEL_PREFIX = "module."  # of torch.nn.DataParallel, in nearly every published file; removed silently
SHOWN = 8  # names in a message before the rest is counted
COUNTER = "num_batches_tracked"  # of a batch norm; it changes nothing here, and some files leave it out
# Option and value that older versions wrote -> what the value is called now.
RENAMED_VALUES = {("npr_norm", "before"): "imagenet", ("npr_norm", "after"): "none"}
# Start of a file, in lower case, that is not a weight file -> what it is and what to do next.
FOREIGN_STARTS = {
    (b"<!doctype", b"<html", b"<?xml"): "is a web page, not weights; download it again in a browser",
    (b"version https://git-lfs",): "is a Git LFS pointer, not the weights; fetch them with: git lfs pull",
}
SAVE_WEIGHTS = "save only its weights: torch.save({}, OUT)"


@dataclass
class Loaded:
    """A detector with its weights, and what is known about the file it came from."""

    detector: torch.nn.Module
    arch: str
    options: dict  # the options it was trained with; empty for a published file
    content: dict  # everything else in the file
    path: str
    sha256: str
    notes: list[str]  # what was assumed, for the script to print
    network: str = ""  # what of it was fused, and which engine runs it, once that is decided

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
        network = {"network": self.network} if self.network else {}
        return {**known, **self.detector.companions, **config, **network}

    def for_evaluation(self, opt):
        """The same with a detector to score with, as --no_fuse and --engine say; networks/fuse.py."""
        detector, network, line = for_evaluation(self.detector, not opt.no_fuse, opt.engine)
        return replace(self, detector=detector, network=network, notes=[*self.notes, line])


def save(path, detector, **content):
    """Writes a checkpoint so that a crash or a full disk never leaves half a file under `path`."""
    content = {"format": FORMAT, "arch": detector.arch, "calibration": None, **content}
    write = _write_safetensors if Path(path).suffix == ".safetensors" else _write_torch
    try:
        with written_whole(path, binary=True) as file:
            write(file, content, detector.state_dict())
    except RuntimeError as error:  # torch's archive writer reports a full disk in this way
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise OSError(f"could not write {path} (is the disk full?): {error}") from error


def _write_torch(file, content, state):
    torch.save({**content, "model": state}, file)


def _write_safetensors(file, content, state):
    """The weights, and the rest as JSON in the entry FORMAT of the file's own metadata."""
    to_bytes = require_package("safetensors", "a .safetensors file", "safetensors.torch").save
    state = {name: value.contiguous() for name, value in state.items()}
    file.write(to_bytes(state, {FORMAT: json.dumps(content)}))


def _read_safetensors(path):
    with require_package("safetensors", path).safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        own = (file.metadata() or {}).get(FORMAT)
    if not own:
        return state
    content = json.loads(own)
    options = content.get("options", {}).items()  # JSON knows no tuples
    content["options"] = {name: tuple(value) if isinstance(value, list) else value for name, value in options}
    return {**content, "model": state}


def named_or_path(text):
    """Type of --model_path: a name of SHIPPED, or a path with ~ expanded; ./open is a file called open."""
    path = file_path(text)
    return str(Path(path).absolute()) if path in SHIPPED and text != path else path


def located(path):
    """The file of a --model_path: the name of weights of this repository, or a path."""
    return SHIPPED.get(str(path), Path(path))


def read(path):
    """The content of a weight file, read without running any code that it may hold.

    CheckpointError says what a file that cannot be used is, and what to do next.
    """
    path = located(path)
    if not path.is_file():
        best = path / "model_epoch_best.pth"
        wanted = best if best.is_file() else "a file in it"
        hint = f" (it is a folder; name {wanted})" if path.is_dir() else ""
        names = f"{', '.join(SHIPPED)} names weights of this project"
        raise CheckpointError(f"no weight file at {path}{hint}; {names}")
    read_file = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    try:
        content = read_file(path)
    except Exception as error:  # torch raises many types here; what matters to the user is the file
        raise CheckpointError(f"{path} {_what_it_is(path, error)}") from error
    if is_own(content):
        options = content.setdefault("options", {})
        if not isinstance(options, dict) or not isinstance(content.get("model"), dict):
            raise CheckpointError(f"{path} is a damaged {FORMAT} file: it has no model, or no options")
        for (name, before), now in RENAMED_VALUES.items():
            if options.get(name) == before:
                options[name] = now
    return content


def is_own(content):
    """Whether this project wrote the file."""
    return isinstance(content, dict) and content.get("format") == FORMAT


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
    for starts, words in FOREIGN_STARTS.items():
        if start.startswith(starts):
            return words
    if "TorchScript" in str(error):
        return f"is a TorchScript program; {SAVE_WEIGHTS.format('torch.jit.load(FILE).state_dict()')}"
    with suppress(Exception):  # a damaged file raises one of the same many types
        if classes := sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)):
            weights = SAVE_WEIGHTS.format("torch.load(FILE, weights_only=False)['state_dict']")
            return f"holds {', '.join(classes[:3])}, which could run code; if you trust it, {weights}"
    return f"is not a readable weight file: it is damaged, or of another format ({type(error).__name__})"


def unwrapped(content, path):
    """(state_dict, notices): what is around a network's weights is left out, also prefixes of their names.

    A detector's own keys decide which prefix is one, so torch.compile's, Lightning's and others are known
    without a list of them.
    """
    if is_own(content):
        return content["model"], []
    entry, state = _state_dict_in(content, path)
    notices = [] if entry in ("", "model", "state_dict") else [f"its weights are the entry {entry!r}"]
    state, more = _without_prefix(state, path)
    for name in [name for name in state if name.endswith(".running_var")]:
        state.setdefault(name.replace("running_var", COUNTER), torch.tensor(0))
    return state, notices + more


def _without_prefix(state, path):
    """(entries of the network, without the prefix that all of them have; notices)."""
    parallel = PARALLEL_PREFIX if all(name.startswith(PARALLEL_PREFIX) for name in state) else ""
    prefix, *longer = sorted(_prefixes(state), key=len) or [parallel]
    if not all(other.startswith(prefix) for other in longer):
        raise CheckpointError(f"{path} holds several networks: {', '.join([prefix, *longer])}")
    outside = [name for name in state if not name.startswith(prefix)]
    notices = []
    if prefix.replace(PARALLEL_PREFIX, ""):
        notices.append(f"the prefix {prefix!r} of its entries was taken off")
    if outside:
        notices.append(f"entries without the prefix {prefix!r} were left out: {shorten(outside)}")
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return inside, notices


def _state_dict_in(content, path):
    """(name of its entry, state_dict) of the only weights in a file's content, up to two levels deep."""
    states = dict(_dicts_of_tensors(content))
    if not states:
        reason = type(content).__name__
        if isinstance(content, dict):
            wrong = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
            reason = f"entries that are not tensors: {shorten(wrong)}"
        raise CheckpointError(f"{path} holds no weights: expected a state_dict or a 'model', got {reason}")
    # A scaler or a second network may be saved as well.
    states = {names: state for names, state in states.items() if _prefixes(state)} or states

    def rank(names):
        return len(names), names[-1:] not in ((), ("model",), ("state_dict",))

    first = min(map(rank, states))
    usual = [names for names in states if rank(names) == first]
    if len(usual) > 1:
        sets = ", ".join(map(".".join, usual))
        raise CheckpointError(f"{path} holds several networks: {sets}; save one of them as a file")
    return ".".join(usual[0]), states[usual[0]]


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
    """{prefix} in front of all keys of a detector's signature; empty where no detector's keys are there."""
    detectors = [networks.get(name) for name in networks.names()]
    # The trunk of another detector has its names behind the name of the trunk, which is not a prefix.
    trunks = tuple({detector.imagenet[1] for detector in detectors} - {""})
    prefixes = set()
    for first, *others in (detector.signature for detector in detectors if detector.signature):
        for prefix in (key.removesuffix(first) for key in state if key.endswith(first)):
            if not prefix.endswith(trunks) and all(prefix + name in state for name in others):
                prefixes.add(prefix)
    return prefixes


def load_weights(network, state, path, what="", hint=""):
    """Strict load; CheckpointError where keys or shapes differ, or where weights are NaN or infinite.

    what: the network in words, for one that is not a detector; hint: ends the message about keys.
    """
    require_fit(misfits(network, state), path, what or f"detector {network.arch!r}", hint)
    require_finite(state, path)
    network.load_state_dict(state)


def require_finite(state, path):
    """CheckpointError where weights are NaN or infinite."""
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path} holds NaN or infinite values, first in {broken[0]}")


def misfits(network, state):
    """{how: keys} of where a state_dict differs from the network's own."""
    own = network.state_dict()
    return {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [name for name in own if name in state and own[name].shape != state[name].shape],
    }


def require_fit(differing, path, what, hint=""):
    """CheckpointError that says what `misfits` found, if anything."""
    if lists := [f"{len(names)} {how}: {shorten(names)}" for how, names in differing.items() if names]:
        raise CheckpointError(f"{path} does not fit {what}: {'; '.join(lists)}{hint}")


def load(path, arch=None, opt=None):
    """The detector of a weight file, loaded strictly.

    arch, opt: its name and parsed options; needed only where the keys of a published file do not decide.
    """
    path, shipped = located(path), str(path) in SHIPPED
    content, given = read(path), vars(opt or Namespace())
    own = is_own(content)
    detector, notes = (_own if own else _published)(content, path, arch, given)
    notes += [ABOUT_SHIPPED] if shipped else []
    detector.load_companions()
    recorded = content.get("companions", {}) if own else {}
    for name, digest in detector.companions.items():
        notes.append(f"{name} {digest[:12]}")
        if recorded.get(name, digest) != digest:
            notes.append(f"notice: {name} is not that of the training")
    options = content["options"] if own else {}
    return Loaded(detector, detector.arch, options, content, str(path), sha256(path), notes)


def _own(content, path, arch, given):
    """(detector, []) of a file that train.py wrote: flags may repeat what it is, not change it."""
    named, options = content.get("arch"), content["options"]
    if named not in networks.names():
        known = ", ".join(networks.names())
        raise CheckpointError(f"{path} is a {FORMAT} file of the detector {named!r}; known: {known}")
    if arch not in (None, named):
        raise CheckpointError(f"{path} holds a {named!r} detector, not --arch {arch}")
    flags = flags_of(named, given)
    detector = _built(path, named, {**options, **flags})
    trained = _built(path, named, options, "meta") if flags else detector
    if detector.config != trained.config:
        asked = f"the flags, which ask for {describe(detector)}, cannot change that"
        raise CheckpointError(f"{path} was trained as {describe(trained)}; {asked}: leave them out")
    load_weights(detector, content["model"], path)
    return detector, []


def _published(content, path, arch, given):
    """(detector, notes) of a published file: its keys decide what it is, or flags where they do not."""
    state, notices = unwrapped(content, path)
    named, published = recognise(state, path, arch, given)
    detector = _built(path, named, published.options)
    load_weights(detector, published.entries, path)
    assumed = f"{path} is a published file; taken as detector {describe(detector)}"
    notices.insert(0, f"{assumed} (where the file does not say, --arch {named} and its flags do)")
    if published.notice:
        notices.append(published.notice)
    return detector, notices


def recognise(state, path, arch, given):
    """(name, Published) of the only detector that a foreign state_dict fits; CheckpointError without one."""
    candidates = _candidates(state) if arch is None else [arch]
    if not candidates:
        known, entries = ", ".join(networks.names()), f"{len(state)} entries: {shorten(list(state))}"
        raise CheckpointError(f"{path} fits no known detector ({known}); it has {entries}")
    published, differing = {}, {}
    for name in candidates:
        detector, flags = networks.get(name), flags_of(name, given)
        known = Published(flags, state)
        try:
            if state.keys() >= {*detector.signature}:
                known = detector.from_published(state, flags)
        except UserError as error:
            raise CheckpointError(f"{path}: {error}") from error
        published[name] = known
        differing[name] = misfits(_built(path, name, known.options, "meta"), known.entries)
    fitting = [name for name in candidates if not any(differing[name].values())]
    if len(fitting) > 1:
        raise CheckpointError(f"{path} fits several detectors; name one with --arch {{{','.join(fitting)}}}")
    closest = min(candidates, key=lambda name: sum(map(len, differing[name].values())))
    require_fit(differing[closest], path, f"detector {closest!r}")
    return closest, published[closest]


def _candidates(state):
    """Detectors whose signature is in a state_dict; without any, those that have most of theirs in it."""
    signatures = {name: networks.get(name).signature for name in networks.names()}
    whole = [name for name, keys in signatures.items() if state.keys() >= {*keys}]
    return whole or [name for name, keys in signatures.items() if 2 * len(state.keys() & {*keys}) > len(keys)]


def flags_of(arch, given):
    """The detector's own flags among those given."""
    own = vars(own_flags(networks.get(arch)))
    return {name: value for name, value in given.items() if name in own}


def _built(path, arch, options, device="cpu"):
    """The detector that options describe; on "meta" without memory or random numbers."""
    try:
        with torch.device(device):
            return networks.get(arch).from_options(Namespace(**options))
    except UserError as error:
        raise CheckpointError(f"{path}, as it was trained, does not go with these flags: {error}") from error


def shorten(names):
    """The first few names in words, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
