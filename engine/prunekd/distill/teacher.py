"""The teacher: frozen, folded, in 16 bit, in the memory format that measures faster, and never in train mode."""

import copy
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunekd.common.pixels import to_input
from prunekd.distill import tuning
from prunekd.distill.network import TeacherNetwork, compile_network
from prunekd.distill.teacher_files import common_card, digest_of
from prunekd.models import ModelCard

logger = logging.getLogger(__name__)

MODULE = "module"  # the spec of a teacher that is a module of the user's own
COMPILE = ("auto", "on", "off")
DRIFT_IMAGES = 32  # images on which the drift against the plain model is measured
Layout = tuple[torch.dtype, bool]  # dtype, channels-last


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSettings:
    """How a teacher is run.

    dtype of weights and activations, channels_last memory: None for what `prepare` measures to be faster. fold batch
    norm. size: None shows it the student's view as it is, `own` resizes that to the size it was trained for, or a side
    in pixels. compile: `on`, `off`, or `auto` where it pays; done by `prepare`.
    """

    dtype: torch.dtype | None = torch.bfloat16
    fold: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    channels_last: bool | None = True
    size: int | str | None = None
    compile: str = "off"

    def __post_init__(self) -> None:
        if self.compile not in COMPILE:
            raise ValueError(f"compile is {self.compile!r}; it must be {', '.join(COMPILE)}")
        if isinstance(self.size, str) and self.size != "own":
            raise ValueError(f"the teacher's size is {self.size!r}; it must be own or a side in pixels")
        if isinstance(self.size, int) and self.size < 1:
            raise ValueError(f"the teacher's size is {self.size}; it must be 1 pixel or more")


class OnlineTeacher:
    """A frozen network, or the mean of several, that gives logits for the views a student sees.

    It is no `nn.Module`, so nothing that walks the student's modules (train(), DDP, an optimizer) can reach it.
    Batch norm is folded in float32 before the weights are cast; `notes` says what was done. It works at once, in
    bfloat16 and channels-last unless told otherwise; `prepare` measures, chooses and compiles.

    Attributes:
        spec: where it came from.
        card: what it is; of several models the first one's normalisation and size, and all their names.
        digest: SHA-256 of its weights.
        notes: what was done to it.

    Args:
        model: logits (B, C) for images (B, 3, H, W); copied, so the caller's module stays as it is.
        others: further models of an ensemble.
        spec: how a later run finds the same teacher, as `open_teacher` takes it; `module` for a module of the user's
            own, which no spec finds.

    Raises:
        ValueError: an ensemble of different classes.
        RuntimeError: folding changed the logits.
    """

    def __init__(
        self,
        model: nn.Module,
        card: ModelCard,
        settings: TeacherSettings,
        others: Sequence[tuple[nn.Module, ModelCard]] = (),
        spec: str = MODULE,
    ) -> None:
        self._plain = [(_frozen(m), c) for m, c in ((model, card), *others)]
        self.spec = spec
        self.card = common_card([c for _, c in self._plain])
        self.settings = settings
        digests = [digest_of(m) for m, _ in self._plain]
        self.digest = digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
        self._folded = TeacherNetwork(self._plain, size=settings.size, fold=settings.fold, split=True)
        self._layout: Layout = (settings.dtype or torch.bfloat16, settings.channels_last is not False)
        self._network = self._cast(self._layout)
        self._compiled: tuple[torch.Size, Callable[[Tensor], tuple[Tensor, Tensor]]] | None = None
        self._prepared: torch.Size | None = None

    def __repr__(self) -> str:
        return f"OnlineTeacher({self.card.model}, {self.card.num_classes} classes, {', '.join(self.notes)})"

    @property
    def notes(self) -> list[str]:
        """What was done to it, in words."""
        notes = [f"{self._folded.folded} batch norms folded"] if self.settings.fold else []
        if self.settings.size is not None:
            notes.append(f"at {'its own size' if self.settings.size == 'own' else f'{self.settings.size} px'}")
        return [*notes, _words(self._layout), *(["compiled"] if self._compiled else [])]

    @property
    def num_classes(self) -> int:
        """Size of the logits' last dimension."""
        return self.card.num_classes

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, activations and logits."""
        return self._layout[0]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, W), channels-last -> logits (B, C) in the teacher's dtype."""
        return self.from_normalized(self._input(images))

    @torch.no_grad()
    def from_normalized(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) already normalised with the card's mean and std -> logits (B, C)."""
        return self._run(images)[1]

    @torch.no_grad()
    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images (B, 3, H, W) -> what enters the last linear layer (B, F), and logits (B, C), in one pass.

        Raises:
            ValueError: the teacher is an ensemble, or its logits do not come from one linear layer.
        """
        if not self._folded.has_features:
            raise ValueError(
                f"{self.card.model} has no penultimate features to offer: it is an ensemble, or does not end in one "
                "linear layer; use a single teacher, or scores that need logits alone"
            )
        return self._run(self._input(images))

    def describe(self) -> dict[str, str | int | None]:
        """What scores, soft labels and runs record of their teacher: all that its logits depend on."""
        size, dtype = self.settings.size, self.settings.dtype
        return {
            "spec": self.spec,
            "model": self.card.model,
            "size": self.card.size,
            "shown_at": size,
            "digest": self.digest,
            "dtype": "measured" if dtype is None else str(dtype).removeprefix("torch."),
        }

    def prepare(self, images: Tensor, forwards: int) -> None:
        """Choose dtype, memory format and compilation for batches like this one, and bound the drift of the logits.

        Measurements are remembered on disk, so the next teacher of this kind on this machine chooses alike. Batches of
        another shape are taken, too, but not by the compiled network. A second call for the same shape does nothing,
        so runs that share a teacher may all ask for it.

        Args:
            images: a real batch, uint8 (B, 3, H, W), on the teacher's device.
            forwards: batches to come, which decides whether compiling pays; on one machine the same number gives the
                same choice again, so a resumed run's logits are those of its beginning.

        Raises:
            RuntimeError: the logits differ too much from those of the plain float32 model.
        """
        if self._prepared == images.shape:
            return
        self._prepared = images.shape
        plain = TeacherNetwork(self._plain, size=self.settings.size, fold=False, split=False).to(self.settings.device)
        few = images[:DRIFT_IMAGES]
        with torch.no_grad():
            exact = plain(to_input(few, self.card.mean, self.card.std, torch.float32).contiguous())[1]
        del plain
        key = tuning.circumstances(self.card.model, images, self.settings.size, self.settings.device)
        memory = tuning.Measurements(tuning.cache_file())
        seconds = self._choose_layout(images, key, memory)
        found = tuning.drift(exact, self(few))
        tuning.require_small(found, _words(self._layout))
        chosen_for = ", ".join(self.notes)
        logger.info(f"teacher: {chosen_for}; differs from the plain float32 model by {found:.1e} std of its logits")
        if self.settings.compile == "off":
            return
        if self.settings.compile == "auto" and not self._pays(forwards, seconds, memory.get(key)):
            return
        self._compile(images, key, memory)
        chosen = memory.get(key).get("compiled", {})
        memory.put(key, compiled=chosen | {str(forwards): self._compiled is not None})
        tuning.require_small(tuning.drift(exact, self(images)[: len(few)]), f"{_words(self._layout)}, compiled")

    def check_fits(self, classes: tuple[str, ...]) -> None:
        """Raise ValueError unless the teacher's classes are the store's, in the same order."""
        if self.num_classes != len(classes):
            raise ValueError(
                f"the teacher {self.card.model} has {self.num_classes} classes and the store has {len(classes)}; "
                "use a teacher trained on these classes"
            )
        for label, (mine, theirs) in enumerate(zip(self.card.classes, classes, strict=False)):
            if mine != theirs:
                raise ValueError(
                    f"class {label} is {mine!r} for the teacher and {theirs!r} in the store; "
                    "its soft labels would belong to other classes"
                )

    @staticmethod
    def _pays(forwards: int, seconds: float, known: Mapping[str, Any]) -> bool:
        """Whether to compile for so many forwards of so many seconds each: as was chosen before, or by reckoning."""
        chosen = known.get("compiled", {}).get(str(forwards))
        pays, reckoning = tuning.worth_compiling(known, forwards, seconds)
        if chosen is not None:
            pays, reckoning = chosen, f"as chosen before for {forwards} forwards, see {tuning.cache_file()}"
        if not pays:
            logger.info(f"teacher: not compiled: {reckoning}")
        return pays

    def _input(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8:
            raise ValueError(
                f"the images are {images.dtype}; a teacher takes uint8 pixels (`Loader(dtype=torch.uint8)`), or with "
                "`from_normalized` images that are normalized with its own mean and std, card.mean and card.std"
            )
        return to_input(images, self.card.mean, self.card.std, self.dtype)

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        dtype, channels_last = self._layout
        images = images.to(dtype, memory_format=_format(channels_last))
        if self._compiled is None or self._compiled[0] != images.shape:
            features, logits = self._network(images)
            return features, logits
        features, logits = self._compiled[1](images)
        return features, logits

    def _cast(self, layout: Layout) -> TeacherNetwork:
        network = copy.deepcopy(self._folded).to(self.settings.device, layout[0])
        return network.to(memory_format=_format(layout[1])).requires_grad_(False)

    def _choose_layout(self, images: Tensor, key: str, memory: tuning.Measurements) -> float:
        """Take the fastest of the allowed layouts; returns seconds of its forward pass."""
        settings = self.settings
        dtypes = [torch.bfloat16, torch.float32] if settings.dtype is None else [settings.dtype]
        if settings.dtype is None and settings.device.type == "cuda":
            dtypes.insert(1, torch.float16)
        formats = [True, False] if settings.channels_last is None else [settings.channels_last]
        layouts = {_words((dtype, last)): (dtype, last) for dtype in dtypes for last in formats}
        known = memory.get(key).get("seconds", {})
        if len(layouts) == 1 and settings.compile == "off":
            return 0.0  # nothing depends on it
        if not set(layouts) <= set(known):
            known = known | tuning.median_seconds(
                {name: self._contender(self._cast(layout), images, layout) for name, layout in layouts.items()},
                settings.device,
            )
            memory.put(key, seconds=known)
        best = min(layouts, key=lambda name: known[name])
        if len(layouts) > 1:
            figures = ", ".join(f"{name} {1e3 * known[name]:.1f} ms" for name in layouts)
            logger.info(f"teacher: {best} is fastest for {key}: {figures}")
        if layouts[best] != self._layout:
            self._layout = layouts[best]
            self._network = self._cast(self._layout)
        return float(known[best])

    def _contender(self, network: nn.Module, images: Tensor, layout: Layout) -> Callable[[], object]:
        dtype, channels_last = layout
        inputs = to_input(images, self.card.mean, self.card.std, dtype).to(memory_format=_format(channels_last))
        return lambda: network(inputs)

    @torch.no_grad()
    def _compile(self, images: Tensor, key: str, memory: tuning.Measurements) -> None:
        inputs = self._input(images).to(memory_format=_format(self._layout[1]))
        started = time.perf_counter()
        try:
            compiled = compile_network(self._network, inputs)
        except Exception as error:  # the compiler's errors have no common class
            logger.warning(f"teacher: not compiled: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            return
        cost = time.perf_counter() - started
        calls: dict[str, Callable[[], object]] = {
            "eager": lambda: self._network(inputs),
            "compiled": lambda: compiled(inputs),
        }
        seconds = tuning.median_seconds(calls, self.settings.device)
        gain = 1 - seconds["compiled"] / seconds["eager"]
        memory.put(key, compile_seconds=cost, compile_gain=gain)
        figures = (
            f"{1e3 * seconds['compiled']:.1f} ms against {1e3 * seconds['eager']:.1f} ms eager, after {cost:.0f} s"
        )
        if gain <= 0:
            logger.info(f"teacher: not compiled: it gains nothing ({figures})")
            return
        self._compiled = (inputs.shape, compiled)
        logger.info(f"teacher: compiled for batches of {len(inputs)}: {figures}")


def _frozen(model: nn.Module) -> nn.Module:
    """A copy in float32 on the CPU, in eval mode, without gradients."""
    return copy.deepcopy(model).cpu().float().eval().requires_grad_(False)


def _format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _words(layout: Layout) -> str:
    return f"{str(layout[0]).removeprefix('torch.')}{', channels-last' if layout[1] else ''}"
