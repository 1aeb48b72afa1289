"""Helpers for training with a Trainer: checkpoints, callbacks, losses, speed on a CPU, and whole trainings in one call."""
