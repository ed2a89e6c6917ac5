"""prunekd: train an image classifier by knowledge distillation on a pruned dataset."""

__version__ = "0.1.0"
