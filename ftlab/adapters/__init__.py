"""LoRA and QLoRA: configs, target modules, 4-bit weights; save, check, load and switch adapters."""
