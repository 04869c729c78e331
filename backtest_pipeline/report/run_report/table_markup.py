"""Tables and figures as HTML: each figure carries the stored value beside its text."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from backtest_pipeline.report.run_report.contents import Cell, Figure, ReportTable, TableRow


def markup(text: str) -> Markup:
    """Text of which every part is escaped or our own."""
    return Markup(text)  # noqa: S704


def figure_markup(made: Figure, tag: str = "span") -> Markup:
    """A figure with its name, and the repr of its value, as attributes of an element."""
    return markup(f"<{tag}{_attributes(made)}>{escape(made.text)}</{tag}>")


def _attributes(made: Cell) -> str:
    css = f' class="{escape(made.css)}"' if made.css else ""
    if not isinstance(made, Figure):
        return css
    value = "" if made.value is None else repr(made.value)
    return f'{css} data-metric="{escape(made.name)}" data-value="{value}"'


def row_markup(row: TableRow) -> Markup:
    """A row; its explanation folds out of its header."""
    head = escape(row.head)
    if row.about:
        head = markup(f"<details><summary>{head}</summary>{escape(row.about)}</details>")
    cells = "".join(_cell(cell) for cell in row.cells)
    return markup(f'<tr><th scope="row">{head}</th>{cells}</tr>')


def _cell(cell: Cell) -> str:
    if not isinstance(cell, Figure) and cell.css.startswith("chip"):
        return f'<td><span class="{escape(cell.css)}">{escape(cell.text)}</span></td>'
    return f"<td{_attributes(cell)}>{escape(cell.text)}</td>"


def table_markup(table: ReportTable, rows: Iterable[Markup] | None = None) -> Markup:
    """A table that scrolls by itself and can be reached by the keyboard.

    Args:
        table: its label, heads and rows.
        rows: rows that are markup already, in place of the table's own.
    """
    # A header without words is none for a reader of the screen.
    heads = "".join(
        f'<th scope="col">{escape(head)}</th>' if head else "<td></td>" for head in table.heads
    )
    body = "".join(rows if rows is not None else map(row_markup, table.rows))
    whole = (
        f'<div class="sx" tabindex="0" role="region" aria-label="{escape(table.label)}">'
        f'<table class="{escape(table.css)}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    if table.css == "fold":
        whole = f"<details><summary>{escape(table.label)}</summary>{whole}</details>"
    return markup(whole)
