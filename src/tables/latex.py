"""Write a table of the published numbers and ours as LaTeX (package booktabs)."""

import re

from src.tables.numbers import heading, measured_text, published_text
from src.tables.table import Table

SPECIAL = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, **{c: f"\\{c}{{}}" for c in "^~"}}
SPECIAL |= {"±": r"$\pm$", "−": "$-$", "–": "--", "×": r"$\times$", "→": r"$\to$", "‖": r"$\|$", "Φ": r"$\Phi$"}
# One letter after the other, "⁻¹" is $^{-}$$^{1}$, which looks the same as $^{-1}$.
SPECIAL |= {raised: f"$^{{{plain}}}$" for raised, plain in zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True)}
SPECIAL |= {lowered: f"$_{plain}$" for lowered, plain in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)}
NEGATIVE = re.compile(r"(?<![\w-])-(?=\d)")


def to_latex(table: Table) -> str:
    """Return a ``table`` environment with our numbers, each followed by the published one in brackets."""
    published = table.published
    lines = [_line([*published.head, *map(heading, published.columns)])]
    for i, label in enumerate(table.labels):
        cells = [*label]
        for j, column in enumerate(published.columns):
            entry = table.entries[i][j]
            theirs = published_text(entry, column, published.rows[i].tolerance)
            cells.append(f"{measured_text(entry, column)} ({theirs})")
        lines.append(_line(cells))
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    columns = "l" * len(published.head) + "r" * len(published.columns)
    scale = ", ".join((table.scale, *table.changes))
    caption = f"{published.title}. Scale {scale}; in brackets the numbers of {published.source}."
    return (
        "\\begin{table}\n\\centering\n"
        f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"
        f"\\caption{{{escaped(caption)}}}\n\\end{{table}}\n"
    )


def _line(cells: list[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def escaped(text: str) -> str:
    """Return text as LaTeX source."""
    return "".join(SPECIAL.get(character, character) for character in NEGATIVE.sub("−", text))
