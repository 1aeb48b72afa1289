"""A LoRA adapter merged into its base, file to file, with a certificate that the merged model answers the same."""
