"""The memory of a training step: predict it, measure it, and refuse a training that does not fit."""
