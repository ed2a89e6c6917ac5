"""`kd_loss_sparse` in plain PyTorch: the definition, the oracle of the tests, and the "torch" backend."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sparse_targets(
    topk_ids: Tensor, topk_logits: Tensor, logsumexp: Tensor | None, temperature: float | Tensor, num_classes: int
) -> Tensor:
    """The teacher's distribution (B, C) at the temperature from its top K logits, in their dtype.

    Without `logsumexp` the K classes share all the mass; with it they keep their own probabilities, and what is missing
    to 1 is spread evenly over the other classes.
    """
    ids = topk_ids.long()
    if logsumexp is None:
        return torch.zeros(ids.shape[0], num_classes, dtype=topk_logits.dtype, device=ids.device).scatter(
            1, ids, F.softmax(topk_logits / temperature, dim=1)
        )
    known = torch.exp(topk_logits / temperature - logsumexp.unsqueeze(1))
    others = num_classes - ids.shape[1]
    missing = (1.0 - known.sum(1, keepdim=True)).clamp(min=0.0) if others else torch.zeros_like(known[:, :1])
    return (missing / max(others, 1)).expand(-1, num_classes).scatter(1, ids, known)


def kd_loss_sparse_reference(
    student: Tensor,
    topk_ids: Tensor,
    topk_logits: Tensor,
    logsumexp: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    class_scale: Tensor | None = None,
    teacher_std: Tensor | None = None,
) -> Tensor:
    """`kd_loss`'s per-sample loss with the teacher's distribution of `sparse_targets`; float32, or float64 if given."""
    dtype = torch.float64 if torch.float64 in (student.dtype, topk_logits.dtype) else torch.float32
    student, values = student.to(dtype), topk_logits.detach().to(dtype)
    targets = labels.detach().to(dtype) if labels.dim() == 2 else labels.long()
    if class_scale is not None and teacher_std is not None:
        scales = class_scale.detach().to(dtype)
        wanted = targets @ scales if targets.dim() == 2 else scales[targets]
        values = values * (wanted / teacher_std.detach().to(dtype)).unsqueeze(1)
    total = None if logsumexp is None else logsumexp.detach().to(dtype)
    soft_targets = sparse_targets(topk_ids, values, total, temperature, student.shape[1])
    hard = F.cross_entropy(student, targets, reduction="none", label_smoothing=label_smoothing)
    divergence = F.kl_div(F.log_softmax(student / temperature, dim=1), soft_targets, reduction="none").sum(1)
    loss = (1 - alpha) * hard + alpha * temperature**2 * divergence
    return loss if weight is None else loss * weight.detach().to(dtype)
