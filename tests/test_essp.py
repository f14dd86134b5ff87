"""ESSP: its losses against slow formulas, what each gradient reaches, what the guidance is, start weights."""

from argparse import Namespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

import networks
from networks import checkpoint
from networks.init_weights import load_matching, start
from networks.ssp import SSPDetector
from options import TrainOptions

pytestmark = pytest.mark.usefixtures("small_resnet50")
SIDE = 32  # patches are scaled up to this where the size does not matter
RESTORING = ("perception.", "tasks", "enhancement.")


def create(seed=0):
    torch.manual_seed(seed)
    return networks.create(Namespace(arch="essp", essp_upscale=SIDE))


def pixels(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def batch(*shape):
    """Four samples that show every combination of labels."""
    return {
        "image": pixels(4, *shape),
        "clean": pixels(4, *shape, seed=1),
        "label": torch.tensor([0, 1, 0, 1]),
        "blurred": torch.tensor([0, 0, 1, 1]),
        "compressed": torch.tensor([1, 0, 0, 1]),
    }


def slow_bce(logits, labels):
    """Mean of -log(probability of the label), in float64."""
    fake = 1 / (1 + np.exp(-logits.detach().double().numpy()))
    return float(np.mean(-np.log(np.where(np.asarray(labels) == 1, fake, 1 - fake))))


def gradients(detector, loss, prefixes):
    detector.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name: value.grad
        for name, value in detector.named_parameters()
        if name.startswith(prefixes) and value.requires_grad
    }


@pytest.fixture(scope="module")
def detector():
    """In evaluation; the guidance matters and the patch is changed visibly.  Tests leave it as it was."""
    detector, generator = create(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        detector.enhancement.last.weight.normal_(0, 0.1, generator=generator)
        detector.perception.head.weight.normal_(0, 3, generator=generator)
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return detector.eval()


# --- perception and enhancement


def test_the_guidance_is_the_sum_of_the_task_embeddings_weighted_by_their_probabilities(detector):
    seen = []
    handle = detector.enhancement.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    _, quality = detector.restore(pixels(3, 3, 32, 32))
    handle.remove()
    blurred, compressed = (1 / (1 + np.exp(-quality.detach().double().numpy()))).T
    first, second = detector.tasks.detach().double().numpy()
    expected = blurred[:, None] * first + compressed[:, None] * second
    assert expected.shape == (3, 64) and min(np.ptp(blurred), np.ptp(compressed)) > 1e-3
    np.testing.assert_allclose(seen[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def slow_enhancement(state, x, guidance):
    """The U-Net from its weights; x has sides that are multiples of 4."""

    def convolved(name, x):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def guided(name, x):
        both = state[f"{name}.film.weight"] @ guidance.T + state[f"{name}.film.bias"][:, None]
        scale, shift = (half.T[:, :, None, None] for half in (both[: len(both) // 2], both[len(both) // 2 :]))
        x = torch.maximum(convolved(f"{name}.first", x) * (1 + scale) + shift, torch.tensor(0.0))
        return torch.maximum(convolved(f"{name}.second", x), torch.tensor(0.0))

    def smaller(x):
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

    def larger(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    full = guided("down1", x)
    half = guided("down2", smaller(full))
    bottom = guided("bottom", smaller(half))
    up = guided("up2", torch.cat([larger(bottom), half], dim=1))
    return x + convolved("last", guided("up1", torch.cat([larger(up), full], dim=1)))


def test_the_enhancement_is_a_u_net_whose_levels_the_guidance_scales_and_shifts(detector):
    x = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    guidance = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = slow_enhancement(detector.enhancement.state_dict(), x, guidance)
        assert (expected - x).abs().max() > 0.05
        torch.testing.assert_close(detector.enhancement(x, guidance), expected, rtol=1e-4, atol=1e-5)


def test_another_guidance_restores_otherwise(detector):
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (detector.enhancement(x, task[None]) for task in detector.tasks)
    assert (first - second).abs().max() > 1e-3


def test_a_patchs_colour_does_not_move_what_is_perceived(detector):
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) / 2
    colour = torch.tensor([0.4, 0.1, 0.0])[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(
            detector.perception(x + colour), detector.perception(x), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("training", [False, True])
def test_a_new_detector_returns_nearly_the_patch_itself(training):
    fresh, images = create(seed=5).train(training), pixels(4, 3, 32, 32)
    with torch.no_grad():
        restored, _ = fresh.restore(images)
    change = (restored - images / 255).abs().max()
    assert 0 < change < 0.02


def test_its_logits_are_ssps_on_the_restored_patches(detector):
    plain = networks.create(Namespace(arch="ssp", ssp_upscale=SIDE)).eval()
    plain.disc.load_state_dict(detector.disc.state_dict())
    images = pixels(3, 3, 32, 32)
    with torch.no_grad():
        restored, found = detector.restore(images)[0], detector(images)
        assert not torch.allclose(found, plain(images), atol=1e-3)
        torch.testing.assert_close(found, plain(restored), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 45), (2, 3)])
def test_whole_images_of_any_size_are_restored_and_scored(detector, size):
    images = pixels(2, 3, *size)
    with torch.no_grad():
        assert detector.restore(images)[0].shape == images.shape
        found = detector(images)
    assert found.shape == (2,) and found.isfinite().all()


# --- the loss


@pytest.mark.parametrize(("perception", "restoration"), [(1.0, 1.0), (0.5, 2.0), (0.0, 3.0)])
def test_the_terms_equal_their_formulas_and_the_total_weighs_them(
    detector, monkeypatch, perception, restoration
):
    flags = TrainOptions().parse(
        [
            "--arch",
            "essp",
            "--essp_perception_weight",
            str(perception),
            "--essp_restoration_weight",
            str(restoration),
        ]
    )
    with torch.device("meta"):
        monkeypatch.setattr(detector, "weights", networks.create(flags).weights)
    given = batch(3, 32, 32)
    terms = detector.loss(given)
    logits = detector(given["image"])
    restored, quality = detector.restore(given["image"])
    expected = {
        "bce": slow_bce(logits, given["label"]),
        "perception": slow_bce(quality, np.stack([given["blurred"], given["compressed"]], axis=1)),
        "restoration": np.abs(255 * restored.detach().double().numpy() - given["clean"].numpy()).mean(),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5), name
    total = expected["bce"] + perception * expected["perception"] + restoration * expected["restoration"]
    assert terms["total"].item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(terms["logits"], logits.detach())


def test_the_weights_are_1_unless_a_flag_says_otherwise(detector):
    assert detector.weights == {"perception": 1.0, "restoration": 1.0}


@pytest.mark.parametrize(("label", "column", "sample"), [("blurred", 0, 0), ("compressed", 1, 3)])
def test_a_label_of_quality_moves_its_own_logit_and_no_other(detector, label, column, sample):
    def at_the_logits(given):
        kept = []

        def keep(module, _, found):
            found.retain_grad()
            kept.append(found)

        handle = detector.perception.register_forward_hook(keep)
        detector.loss(given)["total"].backward()
        handle.remove()
        return kept[0].grad

    given = batch(3, 32, 32)
    before = at_the_logits(given)
    flipped = given[label].clone()
    flipped[sample] = 1 - flipped[sample]
    change = at_the_logits({**given, label: flipped}) - before
    expected = torch.zeros(4, 2)
    expected[sample, column] = (given[label][sample] - flipped[sample]) / 8  # of a mean over 4 x 2 logits
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lacking", ["clean", "blurred", "compressed"])
def test_a_batch_that_lacks_a_part_is_refused_with_its_name(detector, lacking):
    given = batch(3, 32, 32)
    del given[lacking]
    with pytest.raises(KeyError, match=lacking):
        detector.loss(given)


def test_several_patches_an_image_give_the_mean_of_their_losses_and_one_logit(detector):
    given = batch(3, 3, 32, 32)
    terms = detector.loss(given)
    single = [
        detector.loss({**given, "image": given["image"][:, place], "clean": given["clean"][:, place]})
        for place in range(3)
    ]
    for name in ("perception", "restoration"):
        expected = sum(one[name].item() for one in single) / 3
        assert terms[name].item() == pytest.approx(expected, rel=1e-5), name
    mean = sum(one["logits"] for one in single) / 3
    torch.testing.assert_close(terms["logits"], mean, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(detector(given["image"]), mean, rtol=1e-4, atol=1e-5)
    assert terms["bce"].item() == pytest.approx(slow_bce(mean, given["label"]), rel=1e-4)


def test_training_asks_for_the_clean_patch(detector):
    assert detector.data_config.clean_pair
    assert detector.data_config.patches.size == 32


# --- gradients


def test_the_restoration_moves_the_enhancement_and_not_the_network_behind_it(detector, monkeypatch):
    found = []
    for weight in (0.0, 100.0):
        monkeypatch.setitem(detector.weights, "restoration", weight)
        loss = detector.loss(batch(3, 32, 32))["total"]
        found.append(gradients(detector, loss, ("disc.", "enhancement.last")))
    without, with_it = found
    for name, gradient in without.items():
        assert gradient.any(), name
        assert torch.allclose(gradient, with_it[name], rtol=1e-4, atol=1e-7) == name.startswith("disc."), name


@pytest.mark.parametrize("images", [pixels(2, 3, 32, 32), pixels(2, 2, 3, 32, 32)], ids=["one", "votes"])
def test_the_detection_reaches_everything_in_front_of_it(detector, images):
    found = gradients(detector, detector(images).square().sum(), RESTORING)
    assert {name.split(".")[0] for name in found} == {"perception", "tasks", "enhancement"}
    assert [name for name, gradient in found.items() if gradient is None or not gradient.any()] == []


@pytest.mark.slow
def test_a_few_steps_learn_to_perceive_the_blur_and_to_restore(full_size, monkeypatch):
    rng = np.random.default_rng(0)
    clean = gaussian_filter(rng.normal(size=(8, 3, 12, 12)), (0, 0, 0.8, 0.8))
    clean = np.clip(0.5 + 0.2 * clean / clean.std(), 0, 1)
    blurred = np.array([0, 1, 1, 1, 0, 1, 1, 1])
    seen = np.where(blurred[:, None, None, None] == 1, gaussian_filter(clean, (0, 0, 0.8, 0.8)), clean)
    given = {
        "image": torch.from_numpy(seen).float(),
        "clean": torch.from_numpy(clean).float(),
        "label": torch.from_numpy(blurred),
        "blurred": torch.from_numpy(blurred),
        "compressed": torch.zeros(8),
    }
    learner = create(seed=3).train()
    monkeypatch.setattr(learner, "score", lambda noise: 0 * noise.mean(dim=(1, 2, 3)))  # detection is slow
    learned = [value for name, value in learner.named_parameters() if name.startswith(RESTORING)]
    optimizer = torch.optim.Adam(learned, lr=3e-3)
    history = []
    for _ in range(90):
        terms = learner.loss(given)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        history.append((terms["perception"].item(), terms["restoration"].item()))
    (perception, restoration), (perception_after, restoration_after) = history[0], history[-1]
    assert perception_after < 0.2 * perception
    assert restoration_after < 0.9 * restoration, history[::10]


# --- start weights and flags


@pytest.fixture(scope="module")
def plain():
    """An SSP detector's entries, those of its batch norms unlike a fresh one's."""
    torch.manual_seed(9)
    state = SSPDetector().state_dict()
    return {name: value + 0.25 if "running" in name else value for name, value in state.items()}


def test_a_detector_of_ssp_gives_its_network_and_filters(plain):
    fresh = create(seed=4)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    said = load_matching(fresh, plain, "ssp.pth")
    after = fresh.state_dict()
    assert f"starts from {len(plain)} of {len(after)} entries" in said
    assert all(
        torch.equal(value, plain[name] if name in plain else before[name]) for name, value in after.items()
    )
    assert {name for name in after if name not in plain} == {
        name for name in after if name.startswith(RESTORING)
    }


@pytest.mark.parametrize(("ours", "sign"), [(True, 1), (False, -1)], ids=["ours", "published"])
def test_a_file_of_ssp_gives_fake_1_whoever_wrote_it(plain, tmp_path, ours, sign):
    content = {"format": checkpoint.FORMAT, "arch": "ssp", "options": {}, "model": plain} if ours else plain
    torch.save(content, tmp_path / "ssp.pth")
    fresh = create(seed=4)
    start(fresh, Namespace(model_path=None, init_weights=str(tmp_path / "ssp.pth"), pretrained=False))
    (tmp_path / "ssp.pth").unlink()  # 94 MB
    found = fresh.state_dict()
    for name in ("disc.fc.weight", "disc.fc.bias"):
        assert torch.equal(found[name], sign * plain[name]), name
    assert torch.equal(found["disc.conv1.weight"], plain["disc.conv1.weight"])


@pytest.mark.parametrize("flag", ["--essp_perception_weight", "--essp_restoration_weight"])
@pytest.mark.parametrize("value", ["-0.5", "text", "inf", ""])
def test_a_weight_that_is_no_number_from_0_on_is_refused(capsys, flag, value):
    with pytest.raises(SystemExit) as stopped:
        TrainOptions().parse(["--arch", "essp", f"{flag}={value}"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {flag}: expected a number, 0 or above, got {value!r}" in said
