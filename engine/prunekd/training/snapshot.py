"""The state of a run beside model and optimizer, brought together from all processes and spread over them again."""

from torch import Tensor

from prunekd.common.distributed import World
from prunekd.training.learner import Learner
from prunekd.training.randomness import Randomness
from prunekd.training.samples import SampleState


def collect(world: World, learner: Learner, samples: SampleState | None, randomness: Randomness) -> dict[str, Tensor]:
    """Tensors by name for a checkpoint (a collective call; the same on every process)."""
    tensors: dict[str, Tensor] = {"metrics": world.sum(learner.metrics.sums.clone())}
    for name, state in randomness.capture().items():
        tensors |= {f"random.{name}.{rank}": part for rank, part in enumerate(world.gather(state))}
    if learner.ema:
        tensors |= {f"ema.{name}": tensor for name, tensor in learner.ema.state_dict().items()}
    if samples:
        samples.share(world)
        tensors |= {f"samples.{name}": tensor for name, tensor in samples.state_dict().items()}
    return tensors


def spread(
    tensors: dict[str, Tensor], world: World, learner: Learner, samples: SampleState | None, randomness: Randomness
) -> None:
    """Undo `collect`; a process that was not there when the checkpoint was written starts its generators anew.

    Raises:
        ValueError: something is missing in the checkpoint.
    """
    try:
        if world.is_main:
            learner.metrics.sums.copy_(tensors["metrics"])
        for name in randomness.states:
            key = f"random.{name}.{world.rank}"
            randomness.states[name] = tensors.get(key, randomness.states[name])
        if learner.ema:
            learner.ema.load_state_dict(_below("ema.", tensors))
        if samples:
            samples.load_state_dict(_below("samples.", tensors))
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"the checkpoint lacks state of this run: {error}") from None


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
