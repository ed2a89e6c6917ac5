"""Ensembles, resolutions and features of a teacher, and what `prepare` measures, remembers, compiles and refuses."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from prunekd.distill import OnlineTeacher, TeacherSettings, open_teacher, tuning
from prunekd.models import ModelCard, create_model, save_trained

FP32 = TeacherSettings(dtype=torch.float32)
CARD = ModelCard(model="cifar_resnet8", num_classes=4, size=16, classes=("a", "b", "c", "d"))
OTHER = ModelCard(model="cifar_resnet14", num_classes=4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), size=20)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Measurements of these tests are not remembered beyond them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/prunekd/teacher.json"


def model_of(card: ModelCard, seed: int = 0) -> nn.Module:
    """A model whose batch norms have statistics to fold."""
    model = create_model(card.model, card.num_classes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.2
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
    return model.eval()


def pixels(count: int = 6, size: int = 16, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return images.to(memory_format=torch.channels_last)


def normalized(images: Tensor, card: ModelCard) -> Tensor:
    mean, std = torch.tensor(card.mean).view(1, 3, 1, 1), torch.tensor(card.std).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std


@torch.no_grad()
def test_an_ensemble_gives_the_mean_of_logits_each_with_its_own_normalisation(tmp_path: Path) -> None:
    one, other = model_of(CARD, 1), model_of(OTHER, 2)
    expected = (one(normalized(pixels(), CARD)) + other(normalized(pixels(), OTHER))) / 2
    teacher = OnlineTeacher(one, CARD, FP32, [(other, OTHER)])
    torch.testing.assert_close(teacher(pixels()), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(teacher.from_normalized(normalized(pixels(), CARD)), expected, rtol=1e-3, atol=1e-4)
    paths = []
    for model, card in ((one, CARD), (other, OTHER)):
        paths.append(str(tmp_path / f"{card.model}.safetensors"))
        save_trained(Path(paths[-1]), model, card)
    opened = open_teacher(",".join(paths), CARD.classes, FP32)
    torch.testing.assert_close(opened(pixels()), teacher(pixels()))
    assert opened.digest == teacher.digest != OnlineTeacher(one, CARD, FP32).digest
    assert opened.card.model == "cifar_resnet8+cifar_resnet14"
    assert opened.describe()["digest"] == teacher.digest
    with pytest.raises(ValueError, match="it is an ensemble"):
        opened.features_and_logits(pixels())


def test_an_ensemble_of_other_classes_is_refused() -> None:
    card = ModelCard(model="cifar_resnet8", num_classes=5)
    with pytest.raises(ValueError, match=r"cifar_resnet8 \(4 classes\) and cifar_resnet8 \(5\)"):
        OnlineTeacher(model_of(CARD), CARD, FP32, [(model_of(card), card)])
    renamed = ModelCard(model="cifar_resnet8", num_classes=4, classes=("b", "a", "c", "d"))
    with pytest.raises(ValueError, match="not trained on the same classes"):
        OnlineTeacher(model_of(CARD), CARD, FP32, [(model_of(renamed), renamed)])


def test_the_digest_tells_weights_apart() -> None:
    digests = {OnlineTeacher(model_of(CARD, seed), CARD, FP32).digest for seed in (0, 0, 1)}
    assert len(digests) == 2
    statistics = model_of(CARD, 0)
    statistics.bn1.running_mean[0] += 1e-3
    assert OnlineTeacher(statistics, CARD, FP32).digest not in digests


@torch.no_grad()
@pytest.mark.parametrize(("size", "side", "shown"), [("own", 16, 24), (20, 20, 12), (None, 24, 24), (24, 24, 24)])
def test_a_teacher_sees_images_at_its_own_resolution_if_asked(size: int | str | None, side: int, shown: int) -> None:
    model = model_of(CARD, 3)
    images = pixels(size=shown)
    inputs = normalized(images, CARD)
    if side != shown:
        inputs = F.interpolate(inputs, (side, side), mode="bilinear", antialias=side < shown)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        teacher = OnlineTeacher(model, CARD, TeacherSettings(dtype=dtype, size=size))
        torch.testing.assert_close(teacher(images).float(), model(inputs), rtol=1e-3, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["cifar_resnet14", "resnet18", "mobilenetv3_small_050", "densenet121", "test_vit", "test_convnext"]
)
def test_features_are_what_enters_the_last_layer(name: str) -> None:
    card = ModelCard(model=name, num_classes=7, size=160 if name == "test_vit" else 48)
    model = create_model(name, 7, seed=4).eval()
    teacher = OnlineTeacher(model, card, FP32)
    images = pixels(2, card.size)
    features, logits = teacher.features_and_logits(images)
    inputs = normalized(images, card)
    expected = model.forward_head(model.forward_features(inputs), pre_logits=True)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(logits, model(inputs), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(teacher(images), logits)


def test_a_model_without_one_last_linear_layer_has_logits_but_no_features() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x.mean((2, 3))) + self.b(x.amax((2, 3)))

    model = TwoHeads().eval()
    teacher = OnlineTeacher(model, CARD, FP32)
    with torch.no_grad():
        torch.testing.assert_close(teacher(pixels()), model(normalized(pixels(), CARD)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="does not end in one linear layer"):
        teacher.features_and_logits(pixels())


def test_the_model_given_stays_as_it_was() -> None:
    model = model_of(CARD)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for fold in (True, False):
        teacher = OnlineTeacher(model, CARD, TeacherSettings(fold=fold))
        teacher.prepare(pixels(), 1)
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_prepare_takes_what_measures_fastest_and_remembers_it(
    memory: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    anything = TeacherSettings(dtype=None, channels_last=None)
    teacher = OnlineTeacher(model_of(CARD), CARD, anything)
    exact = OnlineTeacher(model_of(CARD), CARD, FP32)(pixels())
    teacher.prepare(pixels(), 10)
    key, known = next(iter(json.loads(memory.read_text()).items()))
    for part in ("cifar_resnet8, 6 x 16 x 16", f"torch {torch.__version__}", f"{torch.get_num_threads()} threads"):
        assert part in key
    assert set(known["seconds"]) == {"bfloat16", "bfloat16, channels-last", "float32", "float32, channels-last"}
    assert min(known["seconds"], key=known["seconds"].__getitem__) in teacher.notes
    assert any("is fastest for" in line and "ms" in line for line in told)
    assert any("differs from the plain float32 model by" in line for line in told)

    def forbidden(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(tuning, "median_seconds", forbidden)
    for fastest in known["seconds"]:
        figures = {name: 1.0 + (name != fastest) for name in known["seconds"]}
        memory.write_text(json.dumps({key: {"seconds": figures}}))
        again = OnlineTeacher(model_of(CARD), CARD, anything)
        again.prepare(pixels(), 10)
        assert fastest in again.notes
        assert str(again.dtype).removeprefix("torch.") == fastest.split(",")[0]
        torch.testing.assert_close(again(pixels()).float(), exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))


def test_a_memory_that_cannot_be_read_or_written_is_spoken_of(memory: Path, told: list[str]) -> None:
    memory.parent.mkdir(parents=True)
    memory.write_text("{broken")
    OnlineTeacher(model_of(CARD), CARD, TeacherSettings(channels_last=None)).prepare(pixels(), 1)
    assert any("cannot be read" in line and "measuring again" in line for line in told)
    assert json.loads(memory.read_text())
    memory.unlink()
    memory.mkdir()
    OnlineTeacher(model_of(CARD), CARD, TeacherSettings(channels_last=None)).prepare(pixels(), 1)
    assert any("the measurement is not remembered" in line for line in told)


def test_logits_that_a_precision_ruins_are_refused_and_ones_it_hurts_are_spoken_of(told: list[str]) -> None:
    model = model_of(CARD)
    for block in model.blocks:
        block.bn2.weight.data *= 200.0  # activations beyond float16
    teacher = OnlineTeacher(model, CARD, TeacherSettings(dtype=torch.float16))
    with pytest.raises(RuntimeError, match=r"in float16, channels-last differs .* by (nan|inf) std.*another precision"):
        teacher.prepare(pixels(), 1)
    tuning.require_small(0.05, "x")
    assert not told
    tuning.require_small(0.2, "bfloat16")
    assert "in bfloat16 it differs from the plain float32 model by 0.2 std" in told[0]
    with pytest.raises(RuntimeError, match=r"differs from the plain float32 model by 0\.6 std"):
        tuning.require_small(0.6, "bfloat16")


def test_drift_is_the_worst_rows_rms_in_stds() -> None:
    exact = torch.tensor([[0.0, 2.0, 4.0], [0.0, 3.0, 6.0]])  # stds 2 and 3
    assert tuning.drift(exact, exact + torch.tensor([[1.0], [1.2]])) == pytest.approx(0.5)
    assert math.isnan(tuning.drift(exact, exact * math.nan))


@pytest.mark.parametrize(("compile", "forwards"), [("on", 1), ("auto", 10**9)])
def test_a_compiled_teacher_gives_the_same_logits_and_takes_other_batches_too(
    compile: str, forwards: int, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    seconds = {"eager": 0.02, "compiled": 0.01}
    monkeypatch.setattr(tuning, "median_seconds", lambda calls, device: {n: seconds.get(n, 0.02) for n in calls})
    teacher = OnlineTeacher(model_of(CARD), CARD, TeacherSettings(dtype=torch.float32, compile=compile))
    eager = OnlineTeacher(model_of(CARD), CARD, FP32)
    teacher.prepare(pixels(), forwards)
    assert "compiled" in teacher.notes, told
    assert any("10.0 ms against 20.0 ms eager" in line for line in told)
    if torch.backends.mkldnn.is_available():  # convolutions with the activation inside need constant weights
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            teacher(pixels())
        assert any("convolution_pointwise" in event.key for event in profile.key_averages())
    for count in (6, 5):
        torch.testing.assert_close(teacher(pixels(count)), eager(pixels(count)), rtol=1e-4, atol=1e-5)
        features, logits = teacher.features_and_logits(pixels(count))
        torch.testing.assert_close(features, eager.features_and_logits(pixels(count))[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits, eager(pixels(count)), rtol=1e-4, atol=1e-5)


def test_compiling_is_left_out_where_it_does_not_pay_fails_or_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    few = OnlineTeacher(model_of(CARD), CARD, TeacherSettings(compile="auto"))
    few.prepare(pixels(), 3)
    assert any("not compiled: 3 forwards save 0 s, compiling costs 40 s (guessed)" in line for line in told)

    def slower(network: nn.Module, example: Tensor) -> nn.Module:
        return network

    slow = OnlineTeacher(model_of(CARD), CARD, TeacherSettings(compile="on"))
    monkeypatch.setattr("prunekd.distill.teacher.compile_network", slower)
    times = {"eager": 0.01, "compiled": 0.02}
    monkeypatch.setattr(tuning, "median_seconds", lambda calls, device: {n: times.get(n, 0.02) for n in calls})
    slow.prepare(pixels(), 3)
    assert "it gains nothing" in told[-1]

    def broken(network: nn.Module, example: Tensor) -> nn.Module:
        raise RuntimeError("no compiler here\nand more")

    none = OnlineTeacher(model_of(CARD), CARD, TeacherSettings(compile="on"))
    monkeypatch.setattr("prunekd.distill.teacher.compile_network", broken)
    none.prepare(pixels(), 3)
    assert told[-1] == "teacher: not compiled: RuntimeError: no compiler here"
    for teacher in (few, slow, none):
        assert "compiled" not in teacher.notes
        assert torch.isfinite(teacher(pixels())).all()


def test_a_choice_is_made_once_for_a_number_of_forwards(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    seconds = {"eager": 0.02, "compiled": 0.01}
    monkeypatch.setattr(tuning, "median_seconds", lambda calls, device: {n: seconds.get(n, 0.02) for n in calls})
    monkeypatch.setattr(tuning, "COMPILE_SECONDS", 0.0)
    settings = TeacherSettings(dtype=torch.float32, compile="auto")
    first = OnlineTeacher(model_of(CARD), CARD, settings)
    first.prepare(pixels(), 7)
    assert "compiled" in first.notes
    key = tuning.circumstances(CARD.model, pixels(), None, torch.device("cpu"))
    tuning.Measurements(tuning.cache_file()).put(key, compile_seconds=1e9)  # it would not pay any more
    for forwards, compiled in ((7, True), (8, False)):
        again = OnlineTeacher(model_of(CARD), CARD, settings)
        again.prepare(pixels(), forwards)
        assert ("compiled" in again.notes) == compiled, told


@pytest.mark.gpu
def test_a_cuda_graph_gives_the_eager_logits_and_keeps_what_it_handed_out(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    seconds = {"eager": 0.02, "compiled": 0.01}
    monkeypatch.setattr(tuning, "median_seconds", lambda calls, device: {n: seconds.get(n, 0.02) for n in calls})
    device = torch.device("cuda")
    settings = TeacherSettings(dtype=torch.float32, device=device, compile="on")
    teacher = OnlineTeacher(model_of(CARD), CARD, settings)
    teacher.prepare(pixels().to(device), 1)
    assert "compiled" in teacher.notes, told
    eager = OnlineTeacher(model_of(CARD), CARD, TeacherSettings(dtype=torch.float32, device=device))
    batches = [pixels(seed=seed).to(device) for seed in range(4)]
    handed_out = [teacher(batch) for batch in batches]  # compared after all graphs have run
    for batch, logits in zip(batches, handed_out, strict=True):
        torch.testing.assert_close(logits, eager(batch), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(teacher(pixels(5).to(device)), eager(pixels(5).to(device)), rtol=1e-2, atol=1e-2)


@given(forwards=st.integers(0, 10**6), seconds=st.floats(1e-4, 2), cost=st.floats(1, 100), gain=st.floats(-0.5, 0.9))
def test_compiling_pays_when_it_saves_more_than_it_costs(
    forwards: int, seconds: float, cost: float, gain: float
) -> None:
    pays, words = tuning.worth_compiling({"compile_seconds": cost, "compile_gain": gain}, forwards, seconds)
    without, with_it = forwards * seconds, cost + forwards * seconds * (1 - gain)
    if abs(without - with_it) > 1e-6 * without:
        assert pays == (with_it < without)
    assert "measured before" in words


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"compile": "yes"}, "compile is 'yes'"), ({"size": "big"}, "size is 'big'"), ({"size": 0}, "size is 0")],
)
def test_settings_out_of_range_are_named(wrong: dict[str, int | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TeacherSettings(**wrong)  # type: ignore[arg-type]
