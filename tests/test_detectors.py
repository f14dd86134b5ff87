"""The contract that every detector keeps, and NPR against a plain rebuild of the published network."""

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

NPR_PARAMETERS = 1_437_761
EVERY_DETECTOR = pytest.mark.parametrize("name", networks.names())


def create(name, seed=0):
    """The detector that train.py would build with `--arch name` and no other flag."""
    torch.manual_seed(seed)
    return networks.create(TrainOptions().parse(["--arch", name]))


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
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_are_one_finite_float32_per_image(name, batch):
    detector = create(name).eval()
    logits = detector(pixels(batch, side_for(detector), side_for(detector)))
    assert (logits.shape, logits.dtype) == ((batch,), torch.float32)
    assert torch.isfinite(logits).all()


@EVERY_DETECTOR
@pytest.mark.parametrize("value", [0, 255])
def test_an_image_of_one_colour_has_a_finite_logit(name, value):
    detector = create(name).eval()
    image = torch.full((1, 3, side_for(detector), side_for(detector)), value, dtype=torch.uint8)
    assert torch.isfinite(detector(image)).all()


@EVERY_DETECTOR
def test_pixels_and_floats_from_0_to_1_give_the_same_logits(name):
    detector = stir(create(name)).eval()
    images = pixels(2, side_for(detector), side_for(detector))
    assert torch.equal(detector(images), detector(images.float() / 255))


@EVERY_DETECTOR
@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, 1), (1, 1), (0, 33), (3, 7)])
def test_odd_and_oblong_sizes_are_scored(name, down, right):
    detector = create(name).eval()
    side = side_for(detector)
    assert torch.isfinite(detector(pixels(1, side + down, side + right))).all()


@EVERY_DETECTOR
def test_the_smallest_allowed_image_is_scored(name):
    detector = create(name).eval()
    side = detector.data_config.min_side
    assert torch.isfinite(detector(pixels(1, side, side))).all()


@EVERY_DETECTOR
def test_in_evaluation_an_image_has_the_same_logit_alone_and_in_a_batch(name):
    detector = stir(create(name)).eval()
    images = pixels(3, side_for(detector), side_for(detector))
    alone = torch.cat([detector(image[None]) for image in images])
    torch.testing.assert_close(detector(images), alone, rtol=1e-5, atol=1e-5)


@EVERY_DETECTOR
def test_evaluation_changes_no_state(name):
    detector = create(name).eval()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    detector(pixels(2, side_for(detector), side_for(detector)))
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


@EVERY_DETECTOR
def test_the_images_are_not_changed(name):
    detector = create(name).eval()
    images = pixels(2, side_for(detector), side_for(detector)).float() / 255
    before = images.clone()
    detector(images)
    assert torch.equal(images, before)


@EVERY_DETECTOR
def test_the_gradient_reaches_every_parameter_in_use(name):
    detector = create(name).train()
    detector.loss(batch_for(detector, [0, 1, 0, 1]))["total"].backward()
    dead = [
        key
        for key, value in detector.named_parameters()
        if value.requires_grad and (value.grad is None or not value.grad.any())
    ]
    unused = ("DAB.SA.", "DAB.conv1x1")  # DFIG's files hold them
    assert [key for key in dead if not key.startswith(unused)] == []


@EVERY_DETECTOR
@pytest.mark.parametrize(
    "shape", [(64, 64), (3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64), (1, 64, 64, 3), (1, 1, 3, 64, 64)]
)
def test_a_wrong_shape_is_refused_with_that_shape(name, shape):
    if len(shape) == 5 and networks.get(name).data_config.patches:
        pytest.skip("several patches an image")
    with pytest.raises(ValueError, match=str(shape)[1:-1]):
        create(name).eval()(torch.zeros(shape))


@EVERY_DETECTOR
@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.int32, torch.bool, torch.complex64])
def test_a_wrong_dtype_is_refused_with_that_dtype(name, dtype):
    with pytest.raises(ValueError, match=str(dtype)):
        create(name).eval()(torch.zeros((1, 3, 64, 64), dtype=dtype))


@EVERY_DETECTOR
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floats_are_taken_as_0_to_1(name, dtype):
    detector = stir(create(name)).eval()
    images = (pixels(2, side_for(detector), side_for(detector)).float() / 255).to(dtype)
    assert torch.equal(detector(images), detector(images.float()))


@EVERY_DETECTOR
def test_the_loss_is_the_sum_of_its_terms_with_the_logits_beside(name):
    detector = create(name).train()
    terms = detector.loss(batch_for(detector, [0, 1, 1, 0]))
    assert {"total", "logits"} < set(terms)
    assert terms["total"].shape == () and terms["total"].requires_grad
    others = [value for key, value in terms.items() if key not in ("total", "logits")]
    torch.testing.assert_close(sum(others), terms["total"].detach())
    assert terms["logits"].shape == (4,) and not terms["logits"].requires_grad


@EVERY_DETECTOR
def test_terms_beside_the_total_carry_no_graph(name):
    detector = create(name).train()
    terms = detector.loss(batch_for(detector, [0, 1]))
    assert [key for key, value in terms.items() if value.requires_grad] == ["total"]


@EVERY_DETECTOR
def test_state_dict_holds_no_normalisation_constants(name):
    detector = create(name)
    constants = [key for key in detector.state_dict() if key.split(".")[-1] in ("mean", "std")]
    assert constants == []
    assert {"mean", "std"} <= {key for key, _ in detector.named_buffers()}


@EVERY_DETECTOR
def test_normalise_is_the_published_loaders_arithmetic(name):
    images = pixels(1, 16, 16)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = torch.stack([(images[0, c] / 255 - mean[c]) / std[c] for c in range(3)])[None]
    assert torch.equal(create(name).normalise(images), expected)


@EVERY_DETECTOR
def test_the_same_seed_builds_the_same_weights(name):
    first, second = create(name, seed=7).state_dict(), create(name, seed=7).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@EVERY_DETECTOR
def test_logits_stay_float32_under_bf16_autocast(name):
    detector = create(name).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logits = detector(pixels(2, side_for(detector), side_for(detector)))
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@EVERY_DETECTOR
def test_the_cam_layer_is_one_of_its_own_modules(name):
    detector = create(name)
    assert any(module is detector.cam_layer for module in detector.modules())


@EVERY_DETECTOR
def test_a_detector_recognises_its_own_weights(name):
    assert checkpoint.published_as(name, create(name).state_dict(), {}) is not None


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
    with pytest.raises(ValueError, match="'npr' is already taken by NPRDetector"):

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
    with pytest.raises(ValueError, match=f"unknown detector 'nrp'; known: {', '.join(networks.names())}"):
        networks.get("nrp")


def test_a_detector_without_forward_says_so():
    class Empty(base.Detector):
        pass

    with pytest.raises(TypeError, match="Empty must define forward"):
        Empty()(pixels())


def test_a_detector_without_a_cam_layer_says_so():
    class Empty(base.Detector):
        pass

    with pytest.raises(TypeError, match="class-activation"):
        Empty().cam_layer  # noqa: B018  (a property that raises)


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


def test_npr_has_the_published_number_of_parameters():
    assert sum(parameter.numel() for parameter in NPRDetector().parameters()) == NPR_PARAMETERS


def test_npr_has_exactly_the_146_published_keys():
    assert len(npr_keys()) == 146
    assert sorted(NPRDetector().state_dict()) == sorted(npr_keys())


def test_npr_buffers_hold_the_published_number_of_elements():
    state = NPRDetector().state_dict()
    assert sum(value.numel() for value in state.values()) == 1_447_897


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("conv1.weight", (64, 3, 3, 3)),
        ("layer1.0.conv1.weight", (64, 64, 1, 1)),
        ("layer1.0.downsample.0.weight", (256, 64, 1, 1)),
        ("layer2.0.conv2.weight", (128, 128, 3, 3)),
        ("layer2.0.downsample.0.weight", (512, 256, 1, 1)),
        ("layer2.3.conv3.weight", (512, 128, 1, 1)),
        ("fc1.weight", (1, 512)),
        ("fc1.bias", (1,)),
    ],
)
def test_npr_shapes_are_the_published_ones(key, shape):
    assert NPRDetector().state_dict()[key].shape == shape


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


@pytest.mark.parametrize("classes", [0, 2, 1000])
def test_resnet50_with_other_than_one_output_is_refused(classes):
    with pytest.raises(ValueError, match=f"num_classes={classes}"):
        resnet50(num_classes=classes)


def test_resnet50_is_the_npr_detector():
    assert isinstance(resnet50(), NPRDetector)
    assert isinstance(resnet50(num_classes=1), NPRDetector)


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (64, 1)])
@pytest.mark.parametrize("training", [False, True])
def test_npr_refuses_one_pixel_images(size, training):
    with pytest.raises(ValueError, match="at least 2x2"):
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


@pytest.mark.parametrize("size", [(224, 224), (256, 256), (225, 225), (31, 64), (224, 257), (2, 2), (3, 5)])
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
