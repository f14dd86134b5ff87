"""The contract that every detector keeps, and NPR against a plain rebuild of the published network."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import Bottleneck

import networks
from networks import base, checkpoint
from networks.resnet import NPRDetector, resnet50
from options import TrainOptions

pytestmark = pytest.mark.usefixtures("small_resnet50")
NPR_PARAMETERS = 1_437_761
EVERY_DETECTOR = pytest.mark.parametrize("name", networks.names())


def create(name, seed=0):
    """The detector that train.py would build with `--arch name`, patches scaled up to less."""
    small = [f"--{name}_upscale", "64"] if name.endswith("ssp") else []
    torch.manual_seed(seed)
    return networks.create(TrainOptions().parse(["--arch", name, *small]))


@functools.cache
def trained(name):
    """The detector as after training, in evaluation; shared by tests that only ask it."""
    return stir(create(name)).eval()


def pixels(batch=2, height=64, width=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


def batch_for(detector, labels):
    """A training batch of random pixels with what the detector declares beside them."""
    side = side_for(detector)
    batch = {"image": pixels(len(labels), side, side), "label": torch.tensor(labels)}
    if detector.data_config.clean_pair:
        batch["clean"] = pixels(len(labels), side, side, seed=1)
        batch["blurred"] = batch["compressed"] = torch.arange(len(labels)) % 2
    return batch


def side_for(detector):
    return max(64, detector.data_config.min_side)


@torch.no_grad()
def stir(detector, seed=1):
    """Gives batch norms and biases values as after training, so that evaluation mode is no identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.weight.copy_(0.5 + torch.rand(count, generator=generator))
            module.bias.copy_(0.2 * torch.randn(count, generator=generator))
            module.running_mean.copy_(0.2 * torch.randn(count, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(count, generator=generator))
    return detector


# --- every detector


@EVERY_DETECTOR
def test_logits_are_finite_float32_whatever_the_image_the_batch_and_its_order(name):
    detector = trained(name)
    side, smallest = side_for(detector), detector.data_config.min_side
    images = torch.cat([pixels(2, side, side), *(torch.full((1, 3, side, side), v).byte() for v in (0, 255))])
    floats = images.float() / 255
    before, state = floats.clone(), {key: value.clone() for key, value in detector.state_dict().items()}
    with torch.no_grad():
        logits = detector(images)
        alone = torch.cat([detector(image[None]) for image in images])
        assert (logits.shape, logits.dtype) == ((4,), torch.float32)
        torch.testing.assert_close(logits, alone, rtol=1e-5, atol=1e-5)
        assert torch.equal(detector(floats), logits)
        for dtype in (torch.float16, torch.float64):
            same = floats.to(dtype)
            assert torch.equal(detector(same), detector(same.float()))
        sizes = [
            (smallest, smallest),
            (side + 1, side),
            (side, side + 1),
            (side + 3, side + 7),
            (side, side + 33),
        ]
        assert all(torch.isfinite(detector(pixels(1, *size))).all() for size in sizes)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = detector(images)
    assert torch.isfinite(logits).all() and torch.isfinite(rounded).all() and rounded.dtype == torch.float32
    assert torch.equal(floats, before)
    assert all(torch.equal(value, state[key]) for key, value in detector.state_dict().items())


@EVERY_DETECTOR
def test_a_loss_reaches_every_parameter_in_use_and_is_the_sum_of_its_terms(name):
    detector = create(name).train()
    terms = detector.loss(batch_for(detector, [0, 1, 0, 1]))
    assert {"total", "logits"} < set(terms)
    assert [key for key, value in terms.items() if value.requires_grad] == ["total"]
    assert (terms["total"].shape, terms["logits"].shape) == ((), (4,))
    others = [value for key, value in terms.items() if key not in ("total", "logits")]
    torch.testing.assert_close(sum(others), terms["total"].detach())
    terms["total"].backward()
    gradients = {key: value.grad for key, value in detector.named_parameters() if value.requires_grad}
    dead = [key for key, grad in gradients.items() if grad is None or not grad.any()]
    assert all(grad is None or torch.isfinite(grad).all() for grad in gradients.values())
    unused = ("DAB.SA.", "DAB.conv1x1")  # DFIG's files hold them
    assert [key for key in dead if not key.startswith(unused)] == []


@EVERY_DETECTOR
def test_a_wrong_shape_or_dtype_is_refused_with_it(name):
    detector = trained(name)
    shapes = [(64, 64), (3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64), (1, 64, 64, 3)]
    shapes += [] if detector.data_config.patches else [(1, 1, 3, 64, 64)]
    for shape in shapes:
        with pytest.raises(ValueError, match=str(shape)[1:-1]):
            detector(torch.zeros(shape))
    for dtype in (torch.int8, torch.int64, torch.int32, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match=str(dtype)):
            detector(torch.zeros((1, 3, 64, 64), dtype=dtype))


@EVERY_DETECTOR
def test_what_a_detector_declares(full_size, name):
    detector = create(name)
    state = detector.state_dict()
    constants = [key for key in state if key.split(".")[-1] in ("mean", "std")]
    assert constants == [] and {"mean", "std"} <= {key for key, _ in detector.named_buffers()}
    assert any(module is detector.cam_layer for module in detector.modules())
    assert detector.signature and {*detector.signature} <= state.keys()
    assert checkpoint.recognise(state, "a.pth", name, {})[0] == name
    assert networks.describe(networks.get(name)()) == f"{name}, default options"
    images = pixels(1, 16, 16)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = torch.stack([(images[0, c] / 255 - mean[c]) / std[c] for c in range(3)])[None]
    assert torch.equal(detector.normalise(images), expected)


@EVERY_DETECTOR
def test_a_seed_builds_the_same_weights_and_a_checkpoint_brings_them_back(name, tmp_path):
    first, second = create(name, seed=7), create(name, seed=7)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    small = {f"{name}_upscale": 64} if name.endswith("ssp") else {}
    checkpoint.save(tmp_path / "a.pth", first, options=small)
    loaded = checkpoint.load(tmp_path / "a.pth")
    (tmp_path / "a.pth").unlink()  # 94 MB
    assert (loaded.arch, loaded.detector.config) == (name, first.config)
    assert all(map(torch.equal, first.state_dict().values(), loaded.detector.state_dict().values()))


@pytest.mark.cuda
@EVERY_DETECTOR
def test_cpu_and_cuda_logits_agree(name):
    detector = stir(create(name)).eval()
    images = pixels(4, max(224, side_for(detector)), max(224, side_for(detector)))
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = detector(images)
        logits = detector.to("cuda")(images.to("cuda"))
    assert logits.device.type == "cuda"
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-3)


# --- the registry


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry, so that a test may add to it."""
    monkeypatch.setattr(networks, "_REGISTRY", dict(networks._REGISTRY))


def test_a_name_taken_twice_is_refused_and_keeps_its_first_owner(registry):
    with pytest.raises(ValueError, match="NPRDetector"):

        @networks.register("npr")
        class Second(base.Detector):
            pass

    assert networks.get("npr") is NPRDetector


def test_a_registered_class_is_known_by_name_and_carries_it(registry):
    @networks.register("toy")
    class Toy(base.Detector):
        pass

    assert networks.get("toy") is Toy
    assert Toy.arch == "toy"
    assert networks.names() == sorted(networks.names()) and "toy" in networks.names()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=", ".join(networks.names())):
        networks.get("nrp")


# --- NPR


def npr_keys():
    """The published file's entries, written out from the description of the network."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys = ["conv1.weight", *(f"bn1.{part}" for part in norm)]
    for stage, blocks in (("layer1", 3), ("layer2", 4)):
        for block in range(blocks):
            for number in (1, 2, 3):
                keys.append(f"{stage}.{block}.conv{number}.weight")
                keys += [f"{stage}.{block}.bn{number}.{part}" for part in norm]
        keys.append(f"{stage}.0.downsample.0.weight")
        keys += [f"{stage}.0.downsample.1.{part}" for part in norm]
    return [*keys, "fc1.weight", "fc1.bias"]


SHAPES = {
    "conv1.weight": (64, 3, 3, 3),
    "layer1.0.conv1.weight": (64, 64, 1, 1),
    "layer1.0.downsample.0.weight": (256, 64, 1, 1),
    "layer2.0.conv2.weight": (128, 128, 3, 3),
    "layer2.0.downsample.0.weight": (512, 256, 1, 1),
    "layer2.3.conv3.weight": (512, 128, 1, 1),
    "fc1.weight": (1, 512),
    "fc1.bias": (1,),
}


def test_npr_has_exactly_the_146_published_entries():
    detector = NPRDetector()
    state = detector.state_dict()
    assert len(npr_keys()) == 146 and sorted(state) == sorted(npr_keys())
    assert sum(parameter.numel() for parameter in detector.parameters()) == NPR_PARAMETERS
    assert sum(value.numel() for value in state.values()) == 1_447_897
    assert {key: tuple(state[key].shape) for key in SHAPES} == SHAPES


def test_npr_strides_sit_in_the_3x3_convolutions():
    detector = NPRDetector()
    strided = {
        name
        for name, module in detector.named_modules()
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2)
    }
    assert strided == {"conv1", "layer2.0.conv2", "layer2.0.downsample.0"}


def test_npr_convolutions_start_kaiming_normal_by_fan_out():
    torch.manual_seed(0)
    for name, module in NPRDetector().named_modules():
        if isinstance(module, nn.Conv2d):
            weight, count = module.weight.detach().double(), module.weight.numel()
            expected = math.sqrt(2 / (module.out_channels * module.kernel_size[0] ** 2))
            assert abs(weight.std().item() / expected - 1) < 5 / math.sqrt(2 * count), name
            assert abs(weight.mean().item()) < 5 * expected / math.sqrt(count), name
            tail = (
                (weight.abs() > 2 * expected).double().mean().item()
            )  # 4.55 % of a normal, 0 % of a uniform
            assert 0.03 < tail < 0.06, name


def test_npr_batch_norms_start_at_one_and_zero():
    norms = [module for module in NPRDetector().modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 24
    for norm in norms:
        assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
        assert norm.running_mean.eq(0).all() and norm.running_var.eq(1).all()
        assert (norm.eps, norm.momentum) == (1e-5, 0.1)


def test_npr_head_starts_with_pytorchs_default():
    torch.manual_seed(0)
    head, bound = NPRDetector().fc1, 1 / math.sqrt(512)
    assert head.weight.abs().max() <= bound and head.bias.abs().max() <= bound
    assert abs(head.weight.std().item() / (bound / math.sqrt(3)) - 1) < 0.1


def test_resnet50_is_the_npr_detector_with_one_output():
    assert isinstance(resnet50(), NPRDetector)
    assert isinstance(resnet50(num_classes=1), NPRDetector)
    for classes in (0, 2, 1000):
        with pytest.raises(ValueError, match=str(classes)):
            resnet50(num_classes=classes)


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (64, 1)])
@pytest.mark.parametrize("training", [False, True])
def test_npr_refuses_one_pixel_images(size, training):
    with pytest.raises(ValueError, match="2x2"):
        NPRDetector().train(training)(pixels(2, *size))


def test_npr_scores_a_channels_last_batch_alike():
    detector = stir(create("npr")).eval()
    images = pixels(2, 65, 64)
    torch.testing.assert_close(
        detector.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last)),
        stir(create("npr")).eval()(images),
        rtol=1e-5,
        atol=1e-5,
    )


def test_npr_ignores_the_brightness_of_an_image():
    detector = stir(create("npr")).eval()
    images = pixels(2) // 2
    with torch.no_grad():
        torch.testing.assert_close(detector(images + 40), detector(images), rtol=1e-3, atol=1e-3)


class PublishedNetwork(nn.Module):
    """Upstream's network spelt out plainly with torchvision's block; takes normalised images."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self.stage(64, 64, blocks=3, stride=1)
        self.layer2 = self.stage(256, 128, blocks=4, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc1 = nn.Linear(512, 1)

    @staticmethod
    def stage(inputs, planes, blocks, stride):
        outputs = 4 * planes
        projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        rest = [Bottleneck(outputs, planes) for _ in range(blocks - 1)]
        return nn.Sequential(Bottleneck(inputs, planes, stride, projection), *rest)

    def forward(self, x):
        if x.shape[2] % 2 == 1:
            x = x[:, :, :-1, :]
        if x.shape[3] % 2 == 1:
            x = x[:, :, :, :-1]
        small = F.interpolate(x, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
        npr = x - F.interpolate(small, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)
        x = self.maxpool(self.relu(self.bn1(self.conv1(npr * 2.0 / 3.0))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc1(x.flatten(1))


def published_input(images):
    """ToTensor and Normalize of the published loader."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images.float().div(255) - mean[:, None, None]) / std[:, None, None]


@pytest.fixture(scope="module")
def pair():
    """Our detector and the plain rebuild with the same weights."""
    detector, plain = stir(create("npr")), PublishedNetwork()
    plain.load_state_dict(detector.state_dict(), strict=True)
    return detector, plain


@pytest.mark.parametrize("size", [(224, 224), (225, 225), (31, 64), (64, 97), (2, 2), (3, 5)])
def test_npr_logits_equal_the_published_networks_in_evaluation(pair, size):
    detector, plain = (network.eval() for network in pair)
    images = pixels(2, *size)
    with torch.no_grad():
        logits, expected = detector(images), plain(published_input(images)).squeeze(1)
    assert (logits - expected).abs().max() < 1e-5
    assert logits.abs().max() > 1e-3  # an all-zero trunk would agree too


def test_npr_logits_and_statistics_equal_the_published_networks_in_training():
    detector, plain = stir(create("npr")).train(), PublishedNetwork().train()
    plain.load_state_dict(detector.state_dict(), strict=True)
    images = pixels(4, 96, 96)
    logits, expected = detector(images), plain(published_input(images)).squeeze(1)
    assert (logits - expected).abs().max() < 1e-5
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(detector.state_dict()[key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_npr_gradients_equal_the_published_networks():
    detector, plain = stir(create("npr")).train(), PublishedNetwork().train()
    plain.load_state_dict(detector.state_dict(), strict=True)
    images, labels = pixels(4, 64, 64), torch.tensor([0, 1, 1, 0])
    detector.loss({"image": images, "label": labels})["total"].backward()
    logits = plain(published_input(images)).squeeze(1)
    nn.BCEWithLogitsLoss()(logits, labels.float()).backward()
    ours = dict(detector.named_parameters())
    for key, value in plain.named_parameters():
        limit = 1e-4 * value.grad.abs().max().item()
        assert (ours[key].grad - value.grad).abs().max() <= limit, key
