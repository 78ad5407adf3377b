"""How every result shows itself: one line for a person, a table in a notebook, JSON for a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

from residualign._files import plain
from residualign._messages import NONE, visible

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = ["Result", "Row", "Table", "html_table", "one_line"]

Row = Mapping[str, Any]
Table = Sequence[Row]
"""One mapping per line, all with the same names in the same order."""

_LONGEST, _ROWS = 200, 20


class Result:
    """A mixin for frozen dataclasses (`repr=False`): `repr`, `to_json`, `tables`, `figures`, HTML for notebooks.

    A subclass says what it is in `_summary`, and overrides `tables`, `figures` and `to_json` where it has them.
    """

    def _summary(self) -> str:
        """What this is, without the name of its class: the fields that are short, unless a subclass says it better."""
        values = {name: value for name, value in vars(self).items() if isinstance(value, str | int | float)}
        return ", ".join(f"{name}={value!r}" for name, value in values.items())

    def __repr__(self) -> str:
        return one_line(f"{type(self).__name__}({self._summary()})")

    @property
    def tables(self) -> dict[str, Table]:
        """The numbers as tables, by name: one dictionary per row, ready for `pandas.DataFrame`."""
        return {}

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures by name; each is drawn when it is first shown or saved."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON types, as the command prints it with `--json`; NaN becomes None."""
        content: dict[str, Any] = plain(asdict(self))  # type: ignore[call-overload]
        return content

    def _repr_html_(self) -> str:
        tables = [html_table(table) for table in list(self.tables.values())[:1]]
        return "".join([f"<p><code>{escape(repr(self))}</code></p>", *tables])


def one_line(text: str) -> str:
    """The text on one line of at most 200 characters, cut with dots.

    >>> len(one_line("x" * 500))
    200
    """
    text = visible(" ".join(text.split()))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def html_table(table: Table, most: int = _ROWS) -> str:
    """The first rows of a table as HTML, every cell escaped.

    >>> html_table([{"unit": "L0.H1", "share": 0.25}])
    '<table><tr><th>unit</th><th>share</th></tr><tr><td>L0.H1</td><td>0.25</td></tr></table>'
    """
    if not table:
        return ""
    names = list(table[0])
    rows = ["".join(f"<th>{escape(name)}</th>" for name in names)]
    rows += ["".join(f"<td>{_cell(row[name])}</td>" for name in names) for row in table[:most]]
    left = len(table) - most
    more = f"<p>{left:,} more rows in <code>.tables</code></p>" if left > 0 else ""
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>{more}"


def _cell(value: Any) -> str:
    if value is None or value != value:
        return NONE
    return escape(f"{value:.4g}" if isinstance(value, float) else visible(str(value)))
