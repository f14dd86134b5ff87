"""A fused detector gives the logits of the published order, whatever it folds."""

import json

import pytest
import torch
from torch import nn

import networks
from common import UserError
from networks import fuse
from networks.npr import window_residual
from options import TrainOptions
from tools import benchmark

FOLDING = (
    "",
    "--npr_norm none",
    "--npr_color gray",
    "--npr_color ycbcr",
    "--npr_stem 7x7s2",
    "--npr_stages 3",
)
FOLDING += ("--npr_window 2 --npr_ref w4", "--npr_window 2 --npr_ref mean", "--npr_attention channel_spatial")
NOT_FOLDING = {
    "--npr_factor 0.25": "repeat",
    "--npr_window 3": "repeat",
    "--npr_window 2 --npr_ref max": "repeat",
    "--npr_mode bilinear": "repeat",
    "--npr_factors 0.25,0.5": "repeat",
    "--npr_front none": "repeat",
    "--npr_color lab": "lab is not linear",
    "--npr_stem 3x3s1": "one pixel",
}
LARGE = ("cnndet", "essp", "res50")
SIZES = ((32, 32), (33, 47), (64, 50), (2, 2), (3, 2))


def trained(flags):
    """A detector whose batch norms hold numbers as after a training, in evaluation mode."""
    torch.manual_seed(1)
    detector = networks.create(TrainOptions().parse(flags.split()))
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):
                nn.init.uniform_(tensor, low, high)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return detector.eval()


def pictures(size, dtype=torch.uint8):
    pixels = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    return pixels if dtype == torch.uint8 else pixels.to(dtype) / 255


@torch.inference_mode()
def require_equal(detector, fused, images):
    before, after = detector(images), fused(images)
    assert torch.allclose(before, after, rtol=1e-5, atol=1e-5), (before - after).abs().max()


@pytest.mark.parametrize("flags", FOLDING)
def test_the_front_folds(flags):
    detector = trained(flags)
    fused, what = detector.fused()
    assert what.startswith("the front and") and isinstance(fused.conv1, fuse.PixelConvolution)
    for size in SIZES:
        require_equal(detector, fused, pictures(size))
    require_equal(detector, fused, pictures((20, 21), torch.float32))


@pytest.mark.parametrize(("flags", "reason"), NOT_FOLDING.items())
def test_other_fronts_stay_and_say_why(flags, reason):
    detector = trained(flags)
    fused, what = detector.fused()
    assert "but not the front" in what and reason in what
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    require_equal(detector, fused, pictures((36, 40)))


@pytest.mark.parametrize(
    "arch", ["ssp", "mobilev2", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_batch_norms_of_every_detector_fold(arch):
    detector = trained(f"--arch {arch}")
    fused, what = detector.fused()
    patches = detector.data_config.patches
    side = patches.size if patches else 64
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    assert what == f"{norms} batch norms" and norms > 20
    require_equal(detector, fused, pictures((side, side)))


def test_the_original_stays_as_it_is():
    detector = trained("")
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    detector.fused()
    assert detector.state_dict().keys() == state.keys()
    assert all(torch.equal(value, detector.state_dict()[name]) for name, value in state.items())


def test_the_kernel_is_the_difference_to_the_first_pixel():
    """Against the map's own definition: conv1 of the map of one bright pixel, at each place of a window."""
    detector = trained("--npr_norm none")
    detector.bn1 = nn.BatchNorm2d(64, eps=0).eval()  # does nothing
    conv = fuse.first_convolution(detector)
    assert conv.weight.shape == (64, 3, 4, 4) and conv.bias.abs().max() == 0
    for row, column in ((0, 0), (1, 0), (2, 3), (3, 3)):
        pixels = torch.zeros(1, 3, 8, 8)
        pixels[0, 1, row + 2, column + 2] = 255  # the output at (2, 2) sees rows and columns 2 to 5
        seen = detector.conv1(window_residual(pixels / 255) * 2 / 3)[0, :, 2, 2]
        assert torch.allclose(conv.weight[:, 1, row, column] * 255, seen, atol=1e-6)


def test_a_flat_image_has_no_trace_under_bf16():
    conv = fuse.first_convolution(trained(""))
    with torch.autocast("cpu", torch.bfloat16):
        flat = conv(torch.full((1, 3, 32, 32), 201.0))[:, :, 2:]  # without the padded rows
    assert (flat[..., 2:] - conv.bias[:, None, None]).abs().max() < 1e-4


def test_what_differs_is_not_used():
    detector = trained("")
    detector.fused = lambda: (trained("--npr_norm none"), "nothing")
    network, name, line = fuse.for_evaluation(detector)
    assert network is detector and name == "published order" and "logits differ by" in line


def test_damaged_weights_are_not_fused():
    detector = trained("")
    detector.fc1.weight.data.fill_(float("nan"))
    assert fuse.for_evaluation(detector)[0] is detector


def test_no_fuse_keeps_the_order():
    detector = trained("")
    assert fuse.for_evaluation(detector, fuse=False)[:2] == (detector, "published order")
    assert fuse.for_evaluation(detector)[1] == "fused"


OTHER = [("--arch ssp", ((32, 32),)), ("--arch cnndet", ((64, 72),))]


@pytest.mark.parametrize(
    ("flags", "sizes"), [("", SIZES), *(pytest.param(*row, marks=pytest.mark.slow) for row in OTHER)]
)
def test_onnx_runtime_gives_the_same_logits(flags, sizes):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    detector = trained(flags)
    network, name, line = fuse.for_evaluation(detector, engine="onnxruntime")
    assert name == "fused, onnxruntime" and "ONNX Runtime" in line
    assert network.data_config == detector.data_config
    for size in sizes:
        require_equal(detector, network, pictures(size))
        require_equal(detector, network, pictures(size)[:1])


@pytest.mark.slow
def test_a_detector_without_a_graph_says_so():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with pytest.raises(UserError, match="'res50' has no ONNX graph"):
        fuse.for_evaluation(trained("--arch res50"), engine="onnxruntime")


@pytest.mark.parametrize("what", ["engines", "training"])
def test_the_benchmark_compares_with_upstreams_way(what, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)  # the graph takes seconds
    benchmark.main(
        [what, "--side", "32", "--batch_size", "2", "--repeats", "1", "--busy", "1", "--device", "cpu"]
    )
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["busy"] == 1 and len(last[what]) >= 2
    assert last[what][benchmark.UPSTREAM]["ratio"] == 1
    assert all(way["images/s"] > 0 for way in last[what].values())
