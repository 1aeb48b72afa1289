"""Merge a LoRA adapter into its base, file to file, and certify that the merged model gives the same answers."""
