"""Progress bars on long work, silence elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from tqdm.auto import tqdm

HEADLESS = "FTLAB_HEADLESS"  # set while notebooks run with nobody before them
LIVE = "progress.json"  # what a lesson writes into its folder while it trains, and `ftlab run` shows


class Bar(tqdm):
    """A progress bar that vanishes when the work is done, and does not appear where nobody watches.

    In a notebook that runs headless it would stay in the stored output, with its timings.
    """

    def __init__(self, *iterables: Any, **options: Any) -> None:
        super().__init__(*iterables, **{**options, "leave": False, "disable": not _watched()})


def bar(what: str, **options: Any) -> tqdm:
    """Return a `Bar` labelled `what`; where a command runs without a terminal, print one plain line instead.

    `options` are those of tqdm, such as `iterable` and `total`.
    """
    if not _watched() and not _in_notebook():
        print(f"ftlab: {what} ...", file=sys.stderr, flush=True)
    return Bar(desc=what, **options)


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


def _watched() -> bool:
    return HEADLESS not in os.environ if _in_notebook() else sys.stderr.isatty()


def quiet() -> None:
    """Silence load reports, tokenizer warnings, and bars for work of a second; errors of the libraries are still shown.

    It sets environment variables that the libraries read at import, so call it before importing them.
    """
    os.environ.update(
        TOKENIZERS_PARALLELISM="true",  # said aloud, so that no fork warns that it was turned off
        TRANSFORMERS_VERBOSITY="error",
        DATASETS_VERBOSITY="error",
        HF_HUB_VERBOSITY="error",
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
