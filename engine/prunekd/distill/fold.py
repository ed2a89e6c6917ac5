"""Fold batch norm into the convolution before it: a frozen network needs no statistics pass.

y = g (Wx + b - m) / s + h  with s = sqrt(var + eps)  is the convolution  (g/s) W x + (g/s)(b - m) + h.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-3  # largest drift of a logit, relative to the largest logit, in float32


def fold_batch_norm(model: nn.Module, example: Tensor) -> tuple[nn.Module, int]:
    """Return a copy of `model` with every convolution's batch norm folded in, and how many were.

    The pairs are found by watching one forward pass: a batch norm is folded when its input is the output of one
    convolution, and each of the two runs once. The copy must then give the model's own logits; if the convolution's
    output was also used elsewhere it would not, and that is an error, not a silent drift.

    Args:
        model: in eval mode, float32.
        example: input (B, 3, H, W) float32 to run and compare on.

    Raises:
        RuntimeError: the folded copy's logits differ by more than TOLERANCE of the largest logit.
    """
    folded = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(example)
        pairs = _convolution_before(folded, example)
        for norm_name, convolution_name in pairs.items():
            _fold_pair(folded, convolution_name, norm_name)
        actual = folded(example)
    drift = float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-6)) if len(expected) else 0.0
    if drift > TOLERANCE:
        raise RuntimeError(
            f"folding batch norm changed a logit by {drift:.2e} of the largest one (limit {TOLERANCE:.0e}): "
            f"{type(model).__name__} uses a convolution's output beside its batch norm; set fold=False"
        )
    return folded, len(pairs)


def _convolution_before(model: nn.Module, example: Tensor) -> dict[str, str]:
    """Names of batch norms -> names of the convolutions whose output they take, from one forward pass."""
    made_by: dict[int, str] = {}
    outputs: list[Tensor] = []  # kept alive, so that no two outputs share an id
    pairs: dict[str, str] = {}
    calls: dict[str, int] = {}
    hooks = []

    def after_convolution(name: str) -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            made_by[id(output)] = name
            outputs.append(output)
            calls[name] = calls.get(name, 0) + 1

        hooks.append(model.get_submodule(name).register_forward_hook(hook))

    def before_norm(name: str) -> None:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            if id(inputs[0]) in made_by:
                pairs[name] = made_by[id(inputs[0])]

        hooks.append(model.get_submodule(name).register_forward_pre_hook(hook))

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            after_convolution(name)
        elif isinstance(module, nn.BatchNorm2d):
            before_norm(name)
    try:
        model(example)
    finally:
        for handle in hooks:
            handle.remove()
    used = list(pairs.values())
    return {n: c for n, c in pairs.items() if calls[n] == 1 and calls[c] == 1 and used.count(c) == 1}


def _fold_pair(model: nn.Module, convolution_name: str, norm_name: str) -> None:
    convolution = model.get_submodule(convolution_name)
    norm = model.get_submodule(norm_name)
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    model.set_submodule(convolution_name, fuse_conv_bn_eval(convolution, norm))
    # timm's BatchNormAct2d applies dropout and the activation after the norm; those stay
    rest = [getattr(norm, part) for part in ("drop", "act") if isinstance(getattr(norm, part, None), nn.Module)]
    model.set_submodule(norm_name, nn.Sequential(*rest) if rest else nn.Identity())
