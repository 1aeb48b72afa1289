"""Will it fit? The memory of a training step: predicted, measured, and guarded."""
