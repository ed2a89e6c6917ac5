"""Student and teacher architectures by name, and trained ones on disk."""

from prunekd.models.factory import create_model
from prunekd.models.own import check_logits, own_name
from prunekd.models.trained import ModelCard, load_trained, save_trained

__all__ = ["ModelCard", "check_logits", "create_model", "load_trained", "own_name", "save_trained"]
