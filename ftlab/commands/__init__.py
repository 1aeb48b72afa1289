"""The commands of the command line: each module adds its options with `add`, and runs with `run`."""
