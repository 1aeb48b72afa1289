"""LoRA and QLoRA: configs, target modules, 4-bit weights; adapters saved, checked, loaded and switched."""
