"""The commands that work on a saved model: each module adds its own to the command line."""
