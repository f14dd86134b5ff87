"""CNNDetection against torchvision's ResNet-50; its files, ImageNet's weights, its published settings."""

from argparse import Namespace

import pytest
import torch
import torchvision

import networks
import networks.init_weights
from networks import checkpoint
from networks.init_weights import start
from options import TrainOptions

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FLAGS = {"model_path": None, "init_weights": None, "pretrained": False}


def pixels(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def create(name="cnndet", seed=0):
    torch.manual_seed(seed)
    return networks.create(Namespace(arch=name))


def stir(net):
    """Batch norms as after training."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net.eval()


def torchvision_shapes():
    with torch.device("meta"):
        net = torchvision.models.resnet50(num_classes=1)
    return {name: value.shape for name, value in net.state_dict().items()}


@pytest.fixture(scope="module")
def theirs():
    """torchvision's network with one output and weights of its own."""
    torch.manual_seed(8)
    return stir(torchvision.models.resnet50(num_classes=1))


# --- the network


def test_logits_are_those_of_torchvisions_network_on_the_normalised_image(theirs):
    detector = create().eval()
    detector.load_state_dict(theirs.state_dict())
    images = pixels(3, 3, 65, 48)
    colours = [(images[:, colour].double() / 255 - MEAN[colour]) / STD[colour] for colour in range(3)]
    with torch.no_grad():
        expected = theirs(torch.stack(colours, dim=1).float())[:, 0]
        assert expected.std() > 1e-3
        torch.testing.assert_close(detector(images), expected, rtol=1e-4, atol=1e-4)


def test_its_320_entries_are_torchvisions():
    with torch.device("meta"):
        detector = create()
    state = detector.state_dict()
    assert len(state) == 320
    assert {name: value.shape for name, value in state.items()} == torchvision_shapes()
    assert sum(value.numel() for value in detector.parameters()) == 23_510_081
    assert all(value.requires_grad for value in detector.parameters())


def test_the_last_layer_starts_normal_with_the_published_deviation():
    weight = create().fc.weight.detach()
    assert abs(weight.std() / 0.02 - 1) < 0.1
    assert abs(weight.mean()) < 5 * 0.02 / 2048**0.5
    assert 0.03 < (weight.abs() > 0.04).float().mean() < 0.06  # 4.55 % of a normal, 0 % of a uniform


def test_it_takes_a_crop_of_224_from_256():
    config = networks.get("cnndet").data_config
    assert (config.load_size, config.crop_size, config.patches, config.clean_pair) == (256, 224, None, False)


# --- files


def test_the_published_files_are_taken_as_they_are(theirs, tmp_path):
    state = theirs.state_dict()
    content = {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "total_steps": 5}
    torch.save(content, tmp_path / "blur_jpg_prob0.1.pth")
    loaded = checkpoint.load(tmp_path / "blur_jpg_prob0.1.pth")
    (tmp_path / "blur_jpg_prob0.1.pth").unlink()  # 94 MB
    found = loaded.detector.state_dict()
    assert loaded.arch == "cnndet"
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert len(loaded.notes) == 1 and "sign" not in loaded.notes[0]


# --- ImageNet's weights


@pytest.mark.parametrize(
    ("name", "prefix", "rest"),
    [("cnndet", "", set()), ("ssp", "disc.", {"srm.kernel"}), ("essp", "disc.", None)],
)
def test_imagenets_weights_reach_every_layer_but_the_last(monkeypatch, name, prefix, rest):
    torch.manual_seed(4)
    imagenet = stir(torchvision.models.resnet50()).state_dict()
    monkeypatch.setattr(networks.init_weights, "imagenet", lambda name: imagenet)
    detector = create(name)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    said = start(detector, Namespace(**{**FLAGS, "pretrained": True}))
    after = detector.state_dict()
    assert f"starts from 318 of {len(after)} entries" in said
    taken = {prefix + key for key in imagenet} - {f"{prefix}fc.weight", f"{prefix}fc.bias"}
    assert all(
        torch.equal(after[key], imagenet[key.removeprefix(prefix)] if key in taken else before[key])
        for key in after
    )
    if rest is not None:
        assert set(after) - taken == {f"{prefix}fc.weight", f"{prefix}fc.bias"} | rest


# --- published settings

PUBLISHED = {
    "recipe": "cnndet",
    "lr": 1e-4,
    "batch_size": 64,
    "niter": 10_000,
    "optim": "adam",
    "beta1": 0.9,
    "lr_policy": "plateau",
    "earlystop_epoch": 5,
    "min_lr": 1e-6,
    "blur_prob": 0.1,
    "blur_sig": (0, 3),
    "jpg_prob": 0.1,
    "jpg_method": ("cv2", "pil"),
    "jpg_qual": (30, 100),
    "pretrained": True,
    "no_flip": False,
    "no_resize": False,
    "loadSize": 256,
    "cropSize": 224,
}


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ("", {}),
        ("--recipe cnndet-0.5", {"recipe": "cnndet-0.5", "blur_prob": 0.5, "jpg_prob": 0.5}),
        ("--lr 0.5 --no_flip", {"lr": 0.5, "no_flip": True}),
        ("--no_pretrained", {"pretrained": False}),
        ("--init_weights a.pth", {"pretrained": False}),
        ("--model_path a.pth", {"pretrained": False}),
    ],
)
def test_training_has_the_published_settings_and_a_flag_wins(flags, changed):
    opt = vars(TrainOptions().parse(["--arch", "cnndet", *flags.split()]))
    assert {name: opt[name] for name in PUBLISHED} == {**PUBLISHED, **changed}


@pytest.mark.parametrize("flag", ["model_path", "init_weights"])
def test_pretrained_typed_beside_a_file_is_refused(capsys, flag):
    with pytest.raises(SystemExit) as stopped:
        TrainOptions().parse(["--arch", "cnndet", "--pretrained", f"--{flag}", "a.pth"])
    assert stopped.value.code == 2
    assert f"one kind of start weights at a time, got --{flag}, --pretrained" in capsys.readouterr().err
