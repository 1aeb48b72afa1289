"""Tables of text in a notebook: aligned to the left, and nothing cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TextTable:
    """A table of sentences. pandas aligns its own to the right, as numbers, and cuts what is long.

    Args:
        frame: the table.
        index: whether to show the index, too.
    """

    frame: pd.DataFrame
    index: bool = True

    def __repr__(self) -> str:
        return self.frame.to_string(index=self.index)

    def _repr_html_(self) -> str:
        return self.html()

    def html(self) -> str:
        """Return the table as HTML, with nothing cut off."""
        import pandas as pd

        frame = self.frame.rename_axis(None)
        with pd.option_context("display.max_colwidth", None):
            html = frame.to_html(index=self.index, justify="left", border=0)
        return html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">')
