"""What trains and what stays: a plan for the layers, the proof that it was kept, and features of frozen layers."""
