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
CLAIMS = "claims.json"  # the claims of a lesson so far, for `ftlab run` to show
_IS_WIDGET = any(base.__name__ == "tqdm_notebook" for base in tqdm.__mro__)


class Bar(tqdm):
    """A progress bar that vanishes when the work is done, and does not appear where nobody watches.

    In a notebook that runs headless it would stay in the stored output, with its timings.
    """

    def __init__(self, *iterables: Any, **options: Any) -> None:
        self._output: Any = None
        widget: dict[str, Any] = {"display": False} if _IS_WIDGET else {}
        super().__init__(
            *iterables, **{**options, **widget, "leave": False, "disable": not _watched() or not _is_first()}
        )
        if widget and not self.disable:
            from IPython.display import display

            self._output = display(self.__dict__["container"], display_id=True)

    def __exit__(self, kind: Any, *more: Any) -> None:
        """End the bar. It vanishes after fewer steps than were announced, too; after an error it stays."""
        if kind is None:
            self.total = self.n
        super().__exit__(kind, *more)

    def close(self) -> None:
        """End the bar. In a notebook, its output becomes text: a saved notebook has no widgets any more."""
        left = str(self) if self.total and self.n < self.total else ""
        super().close()
        if self._output:
            self._output.update({"text/plain": left} if left else {}, raw=True)
            self._output = None


def bar(what: str, **options: Any) -> tqdm:
    """Return a `Bar` labelled `what`; where a command runs without a terminal, print one plain line instead.

    `options` are those of tqdm, such as `iterable` and `total`.
    """
    if not _watched() and not _in_notebook() and _is_first():
        print(f"ftlab: {what} ...", file=sys.stderr, flush=True)
    return Bar(desc=what, **options)


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


def _watched() -> bool:
    return HEADLESS not in os.environ if _in_notebook() else sys.stderr.isatty()


def _is_first() -> bool:
    """Return whether this is the first of several processes of one training, or the only one: the others are silent."""
    return os.environ.get("RANK", "0") == "0"


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
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns that it looks for parameters without a gradient
    for name in ("transformers", "datasets", "huggingface_hub", "torch", "papermill", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Each of these speaks to the libraries' developers and not to a learner.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*", category=UserWarning)
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.set_verbosity_error()
        sys.modules["transformers"].logging.disable_progress_bar()
