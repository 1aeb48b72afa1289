"""Helpers for training with a Trainer: checkpoints, callbacks, losses, and speed on a CPU."""
