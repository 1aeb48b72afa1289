"""Convert a GGUF checkpoint to safetensors, config and tokenizer, which every Hugging Face tool reads."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from ftlab.internals import transformers as transformers_internals
from ftlab.progress import quiet


def convert(folder: Path, gguf_file: str) -> None:
    """Replace the file `gguf_file` in `folder` by a float32 safetensors checkpoint with its tokenizer.

    transformers dequantizes a GGUF file while loading it (20 s for 135M parameters), but marks the model as quantized
    and then refuses to save it. So the weights are loaded into a new model of the same config, without that mark.

    The pad token becomes the unknown token, which a byte-level tokenizer never produces. If pad were EOS, a collator
    that masks padding would mask EOS too, and the model would never learn to stop.

    Source: the GGUF page of the transformers documentation.
    """
    quiet()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with contextlib.redirect_stderr(io.StringIO()):  # no setting turns off the progress bar of transformers here
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file)
        with transformers_internals.LOADING:
            loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf_file, dtype=torch.float32)
    config = loaded.config
    del config.quantization_config
    config.pad_token_id = tokenizer.unk_token_id
    with transformers_internals.LOADING:
        model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.generation_config.pad_token_id = tokenizer.unk_token_id
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.model_max_length = config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / gguf_file).unlink()
