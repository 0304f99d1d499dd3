"""One table of text cells, written as Markdown, CSV and LaTeX through pandas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan2.weights import atomic_path

if TYPE_CHECKING:
    import pandas as pd

DASH = "–"  # a figure that does not exist


@dataclass(frozen=True)
class Table:
    """columns: headings; lines: one list of cells per line; notes: sentences below the table; words: how many leading
    columns hold words and are left-aligned, the others hold numbers."""

    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    words: int = 1

    @property
    def frame(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self.lines, columns=pd.Index(self.columns), dtype=str)

    def markdown(self) -> str:
        align = ["left"] * self.words + ["right"] * (len(self.columns) - self.words)
        table = self.frame.to_markdown(
            index=False, tablefmt="pipe", disable_numparse=True, colalign=align[: len(self.columns)]
        )
        return "\n".join([table, *(f"\n{_sentence(note)}" for note in self.notes)]) + "\n"

    def csv(self) -> str:
        """A figure that does not exist is an empty cell."""
        return self.frame.replace(DASH, "").to_csv(index=False, lineterminator="\n")

    def latex(self) -> str:
        """A booktabs table, with the notes as comments above it."""
        frame = self.frame.replace(DASH, "--", regex=True)
        align = "l" * self.words + "r" * (len(self.columns) - self.words)
        table = frame.to_latex(index=False, escape=True, column_format=align)
        return "".join(f"% {_sentence(note)}\n" for note in self.notes) + table

    def write(self, stem: str | Path, csv: str | None = None) -> None:
        """Writes stem.md, stem.csv and stem.tex. csv: other content for the CSV file, such as figures at full precision."""
        for suffix, text in ((".md", self.markdown()), (".csv", csv or self.csv()), (".tex", self.latex())):
            with atomic_path(f"{stem}{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _sentence(note: str) -> str:
    return note if note.endswith(".") else f"{note}."
