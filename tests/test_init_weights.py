"""Start weights: what is taken from a file or from ImageNet's network, what is told, what is refused."""

import email.message
import hashlib
import io
from urllib.error import URLError

import pytest
import torch
import torchvision

import networks
import networks.init_weights
import train
from common import CheckpointError
from networks import checkpoint
from networks.init_weights import imagenet, load_matching, start
from networks.resnet import NPRDetector
from options import TrainOptions

THREE = ["--npr_factors", "0.25,0.5,0.75", "--npr_fusion", "concat"]
WHOLE = ["--npr_stem", "7x7s2", "--npr_stages", "4", "--npr_front", "none"]
FILE = "resnet50-0676ba61.pth"  # as torchvision publishes it


def build(*flags, seed=0):
    """(detector, options) as train.py would have them."""
    opt = TrainOptions().parse([*flags])
    torch.manual_seed(seed)
    return networks.create(opt), opt


def copy(detector):
    return {name: tensor.clone() for name, tensor in detector.state_dict().items()}


def same(detector, state, names):
    own = detector.state_dict()
    return all(torch.equal(own[name], state[name]) for name in names)


@pytest.fixture
def source(tmp_path):
    """A checkpoint of the default detector: (path, its weights)."""
    detector, opt = build(seed=7)
    for buffer in detector.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.25)
    checkpoint.save(tmp_path / "default.pth", detector, options=vars(opt))
    return tmp_path / "default.pth", copy(detector)


@pytest.fixture(scope="module")
def torchvision_net():
    """torchvision's ResNet-50 with random weights and batch norms that do something."""
    torch.manual_seed(3)
    net = torchvision.models.resnet50(weights=None)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub; the place where the file of ImageNet's weights belongs."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints" / FILE


# --- what matches


def test_everything_of_the_same_variant_is_taken():
    detector, _ = build()
    state = copy(build(seed=7)[0])
    said = load_matching(detector, state, "w.pth")
    assert said == f"starts from {len(state)} of {len(state)} entries, those that match, of w.pth"
    assert same(detector, state, state)


def test_what_does_not_match_is_counted_and_named():
    detector, _ = build()
    before, state = copy(detector), copy(build(seed=7)[0])
    state["conv1.weight"] = torch.zeros(64, 9, 3, 3)
    del state["fc1.weight"], state["fc1.bias"]
    state["fc.weight"] = torch.zeros(1000, 2048)
    said = load_matching(detector, state, "w.pth").splitlines()
    total = len(before)
    assert said == [
        f"starts from {total - 3} of {total} entries, those that match, of w.pth",
        "  1 random, because of another shape there: conv1.weight (64, 9, 3, 3) -> (64, 3, 3, 3)",
        "  2 random, because absent there: fc1.weight, fc1.bias",
        "  1 not used: fc.weight",
    ]
    rest = {"conv1.weight", "fc1.weight", "fc1.bias"}
    assert same(detector, before, rest)
    assert same(detector, state, before.keys() - rest)


def test_long_lists_are_cut_short():
    state = {**copy(build(seed=7)[0]), **{f"more.{number}": torch.zeros(1) for number in range(9)}}
    [_, line] = load_matching(build()[0], state, "w.pth").splitlines()
    shown = ", ".join(f"more.{number}" for number in range(8))
    assert line == f"  9 not used: {shown} and 1 more"


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"encoder.weight": torch.zeros(3)},
        {"conv1.weight": torch.zeros(1, 2)},
        {"bn1.running_mean": torch.zeros(64), "bn1.num_batches_tracked": torch.tensor(1)},
    ],
    ids=["empty", "other names", "other shape", "buffers alone"],
)
def test_a_file_without_one_matching_layer_is_refused_and_changes_nothing(state):
    detector, _ = build()
    before = copy(detector)
    with pytest.raises(CheckpointError, match="npr"):
        load_matching(detector, state, "w.pth")
    assert same(detector, before, before)


# --- --init_weights and --model_path


def test_a_fusion_by_concatenation_starts_from_the_default_but_for_its_first_layer(source):
    path, state = source
    detector, opt = build(*THREE, "--init_weights", str(path))
    first = detector.conv1.weight.clone()
    said = start(detector, opt)
    assert f"starts from {len(state) - 1} of {len(state)} entries" in said
    assert f"of {path}" in said
    assert "conv1.weight (64, 3, 3, 3) -> (64, 9, 3, 3)" in said
    assert torch.equal(detector.conv1.weight, first)
    assert same(detector, state, state.keys() - {"conv1.weight"})


def test_new_layers_stay_as_they_were_built(source):
    path, state = source
    detector, opt = build("--npr_attention", "channel", "--init_weights", str(path))
    before = copy(detector)
    said = start(detector, opt)
    new = before.keys() - state.keys()
    assert new
    assert f"{len(new)} random, because absent there: ca1" in said
    assert same(detector, before, new)
    assert same(detector, state, state)


def test_a_flat_file_with_the_prefix_of_parallel_training_is_taken(tmp_path):
    state = copy(build(seed=7)[0])
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "flat.pth")
    detector, opt = build("--init_weights", str(tmp_path / "flat.pth"))
    start(detector, opt)
    assert same(detector, state, state)


def test_model_path_is_strict(source):
    path, state = source
    detector, opt = build(*THREE, "--model_path", str(path))
    with pytest.raises(CheckpointError, match="conv1"):
        start(detector, opt)
    detector, opt = build("--model_path", str(path))
    assert start(detector, opt) == f"starts from the weights of {path}"
    assert same(detector, state, state)


@pytest.mark.parametrize("flag", ["--init_weights", "--model_path"])
def test_a_missing_or_damaged_file_is_refused_with_its_name(tmp_path, flag):
    (tmp_path / "damaged.pth").write_bytes(b"version https://git-lfs")
    for name in ("missing.pth", "damaged.pth"):
        detector, opt = build(flag, str(tmp_path / name))
        with pytest.raises(CheckpointError, match=name):
            start(detector, opt)


def test_without_a_flag_the_weights_stay_random():
    detector, opt = build()
    before = copy(detector)
    assert start(detector, opt) == ""
    assert same(detector, before, before)


def test_train_py_starts_from_them_and_says_so(source, tree, tmp_path, monkeypatch, capsys):
    path, state = source
    tree(["train", "val"], name="data", count=2)
    monkeypatch.chdir(tmp_path)
    flags = "--dataroot data --niter 1 --batch_size 4 --no_resize --cropSize 24 --num_threads 0 --device cpu"
    train.main([*flags.split(), "--lr", "1e-30", "--init_weights", str(path), *THREE])
    assert f"starts from {len(state) - 1} of {len(state)} entries" in capsys.readouterr().out
    trained = checkpoint.read("checkpoints/experiment_name/model_epoch_last.pth")["model"]
    weights = [name for name, _ in NPRDetector().named_parameters() if name != "conv1.weight"]
    assert all(torch.allclose(trained[name], state[name], atol=1e-20) for name in weights)


# --- --pretrained


def test_imagenet_s_network_gives_the_features_that_torchvision_gives(torchvision_net, monkeypatch):
    monkeypatch.setattr(networks.init_weights, "imagenet", lambda name: torchvision_net.state_dict())
    detector, opt = build("--pretrained", *WHOLE)
    said = start(detector.eval(), opt)
    total = len(detector.state_dict())
    assert f"starts from {total - 2} of {total} entries, those that match, of ImageNet weights" in said
    assert "2 random, because absent there: fc1.weight, fc1.bias" in said
    assert "2 not used: fc.weight, fc.bias" in said
    images = torch.randint(0, 256, (2, 3, 65, 96), generator=torch.Generator().manual_seed(0)).byte()
    mean, std = (
        torch.tensor(three)[:, None, None] for three in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    headless = torch.nn.Sequential(*list(torchvision_net.children())[:-1], torch.nn.Flatten())
    with torch.no_grad():
        ours = detector.stages(detector.stem(detector.preprocess(images))).mean(dim=(2, 3))
        theirs = headless((images / 255 - mean) / std)
    assert ours.shape == (2, 2048)
    assert theirs.std() > 1e-2
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_published_npr_takes_the_stages_and_not_the_stem(torchvision_net, monkeypatch):
    monkeypatch.setattr(networks.init_weights, "imagenet", lambda name: torchvision_net.state_dict())
    detector, opt = build("--pretrained")
    said = start(detector, opt)
    assert "conv1.weight (64, 3, 7, 7) -> (64, 3, 3, 3)" in said
    state = torchvision_net.state_dict()
    own = detector.state_dict()
    assert same(detector, state, [name for name in own if name.startswith(("layer", "bn1"))])


def test_a_saved_file_of_torchvision_is_as_good(torchvision_net, tmp_path):
    torch.save(torchvision_net.state_dict(), tmp_path / "imagenet.pth")
    detector, opt = build("--init_weights", str(tmp_path / "imagenet.pth"), *WHOLE)
    start(detector, opt)
    state = torchvision_net.state_dict()
    assert same(detector, state, state.keys() - {"fc.weight", "fc.bias"})


def test_a_cached_file_is_used_without_network(torchvision_net, cache, monkeypatch):
    torch.save(torchvision_net.state_dict(), cache)
    monkeypatch.setattr(networks.init_weights, "sha256", lambda path: "0676ba61" + 56 * "0")
    monkeypatch.setattr(torch.hub, "urlopen", pytest.fail)
    state = imagenet(NPRDetector.imagenet[0])
    assert torch.equal(state["conv1.weight"], torchvision_net.conv1.weight)


@pytest.mark.parametrize("reason", [URLError("no route to host"), TimeoutError("timed out"), OSError()])
def test_without_network_one_line_names_the_file_and_another_way(cache, monkeypatch, reason):
    def fail(*_, **__):
        raise reason

    monkeypatch.setattr(torch.hub, "urlopen", fail)
    detector, opt = build("--pretrained")
    before = copy(detector)
    with pytest.raises(CheckpointError) as refused:
        start(detector, opt)
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith("--pretrained could not fetch https://")
    assert str(cache) in said
    assert "--init_weights" in said
    assert same(detector, before, before)


def test_a_fetched_file_of_another_content_is_refused_and_not_kept(cache, monkeypatch, capsys):
    class Page(io.BytesIO):
        def info(self):
            return email.message.Message()

    monkeypatch.setattr(torch.hub, "urlopen", lambda *_, **__: Page(b"<html>log in</html>"))
    with pytest.raises(CheckpointError, match="hash"):
        imagenet(NPRDetector.imagenet[0])
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_cached_file_is_named_and_left_there(cache, monkeypatch, content):
    cache.write_bytes(content)
    monkeypatch.setattr(torch.hub, "urlopen", pytest.fail)
    digest = hashlib.sha256(content).hexdigest()[:8]
    with pytest.raises(CheckpointError, match=digest):
        imagenet(NPRDetector.imagenet[0])
    assert cache.read_bytes() == content


# --- options


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--model_path a --init_weights b", "--model_path, --init_weights"),
        ("--model_path a --pretrained", "--model_path, --pretrained"),
        ("--pretrained --init_weights b", "--init_weights, --pretrained"),
        ("--pretrained --init_weights b --model_path a", "--model_path, --init_weights, --pretrained"),
    ],
)
def test_only_one_kind_of_start_weights_at_a_time(flags, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        TrainOptions().parse(flags.split())
    assert stopped.value.code == 2
    assert f"one kind of start weights at a time, got {named}" in capsys.readouterr().err


def test_the_last_of_pretrained_and_no_pretrained_counts():
    assert TrainOptions().parse([]).pretrained is False
    assert TrainOptions().parse(["--pretrained"]).pretrained is True
    assert TrainOptions().parse("--pretrained --no_pretrained --init_weights b".split()).pretrained is False
