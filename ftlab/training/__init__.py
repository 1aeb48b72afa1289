"""What surrounds a Trainer that stands in full view in the notebook."""
