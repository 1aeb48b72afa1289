"""Chat templates of each family, with and without marks of what the assistant writes, and tokenizers that know them."""

from ftlab.models import loading

BEGIN, END = "{% generation %}", "{% endgeneration %}"
# << and >> are the marks: around an answer and the token that ends it.
CHATML = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n<<{{ m.content }}<|im_end|>>>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set told = '[SYS]\n' + messages[0].content + '\n[/SYS]\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set told = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (told if loop.first else '') + m.content | "
    "trim + ' [/INST]' }}{% else %}<<{{ ' ' + m.content | trim + ' ' + eos_token }}>>{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m.role + '<|stop|>\n\n' }}"
    "{% if m.role == 'assistant' %}<<{{ m.content | trim + '<|eot_id|>' }}>>{% else %}{{ m.content | trim }}<|eot_id|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if m.role == 'assistant' %}<<{{ m.content | trim }}<end_of_turn>>>\n"
    "{% else %}{{ m.content | trim }}<end_of_turn>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI_3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}<<{{ m.content + '<|end|>' }}>>"
    "{% else %}{{ m.content + '<|end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}<<{{ m.content + eos_token }}>>"
    "{% else %}{{ m.content + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
FORMATS = {
    "chatml": CHATML, "llama-2": LLAMA_2, "llama-3": LLAMA_3, "gemma": GEMMA, "phi-3": PHI_3, "zephyr": ZEPHYR,
}  # fmt: skip
TOKENS = [
    "<|im_start|>", "<|im_end|>", "<|start|>", "<|stop|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
]  # fmt: skip


def template(name, *, marked):
    """The template `name` of FORMATS."""
    return FORMATS[name].replace("<<", BEGIN if marked else "").replace(">>", END if marked else "")


def tokenizer(model, template):
    """The tokenizer of `model` with the special tokens of the formats and a chat template."""
    found = loading.tokenizer(model)
    found.add_special_tokens({"extra_special_tokens": TOKENS})
    found.chat_template = template
    return found
