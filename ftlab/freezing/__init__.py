"""Freezing layers: a plan of what trains, the proof that it was kept, and cached features of frozen layers."""
