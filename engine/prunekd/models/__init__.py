"""Student and teacher architectures by name, and trained ones on disk."""

from prunekd.models.factory import create_model
from prunekd.models.trained import ModelCard, load_trained, save_trained

__all__ = ["ModelCard", "create_model", "load_trained", "save_trained"]
