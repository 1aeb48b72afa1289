"""Progress bars on long work, silence elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from tqdm.auto import tqdm

HEADLESS = "FTLAB_HEADLESS"  # set while notebooks run with nobody before them


def bar(what: str, **options: Any) -> tqdm:
    """A progress bar that is gone when the work is done.

    Where nobody watches a terminal there is one plain line instead, and in a notebook that runs headless nothing:
    a bar would stay in the stored output, with its timings.
    """
    in_notebook = "ipykernel" in sys.modules
    watched = (in_notebook and HEADLESS not in os.environ) or sys.stderr.isatty()
    if not watched and not in_notebook:
        print(f"ftlab: {what} ...", file=sys.stderr, flush=True)
    return tqdm(desc=what, leave=False, disable=not watched, **options)


def quiet() -> None:
    """Silence what is not the lesson: load reports, tokenizer warnings, bars for work of a second.

    Sets environment variables that the libraries read when they are imported, so call it before importing them.
    What a library reports as an error is still shown.
    """
    os.environ.update(
        TOKENIZERS_PARALLELISM="true",  # said aloud, so that no fork warns that it was turned off
        TRANSFORMERS_VERBOSITY="error",
        DATASETS_VERBOSITY="error",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_DATASETS_DISABLE_PROGRESS_BARS="1",
        BITSANDBYTES_NOWELCOME="1",
    )
    for name in ("transformers", "datasets", "huggingface_hub", "torch", "papermill", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Each of these speaks to the libraries' developers and not to a learner.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*", category=UserWarning)
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.set_verbosity_error()
        sys.modules["transformers"].logging.disable_progress_bar()
