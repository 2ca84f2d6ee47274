"""Tables of texts for papers and readmes: Markdown and LaTeX."""

import re
from collections.abc import Iterable, Sequence

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "–": "--",
    "●": r"$\bullet$",
    "→": r"$\to$",
    "\u00a0": "~",
}

TableRows = Iterable[Sequence[str]]


def latex_text(text: str) -> str:
    """Return a text that LaTeX sets as it stands."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split("\n")))


def latex_table(header: Sequence[str], rows: TableRows, note: str = "") -> str:
    """Return a `tabular` with the rules of booktabs, its first column to the left and the others to the right.

    Args:
        header: names of the columns.
        rows: cells as texts.
        note: put above as a comment.
    """

    def line(cells: Sequence[str]) -> str:
        text = " & ".join(map(latex_text, cells))
        if text.startswith("["):  # else an argument of the command before
            text = f"{{[}}{text[1:]}"
        return f"{text} \\\\"

    comments = [f"% {one}" for one in (*note.splitlines(), r"needs \usepackage{booktabs}")]
    return "\n".join(
        [
            *comments,
            f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            line(header),
            r"\midrule",
            *map(line, rows),
            r"\bottomrule",
            "\\end{tabular}\n",
        ]
    )


def markdown_text(text: str) -> str:
    """Return a text that stands in a cell of a Markdown table as it is."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(text.split("\n")))


def markdown_table(header: Sequence[str], rows: TableRows) -> str:
    """Return a Markdown table, its first column to the left and the others to the right."""
    ends = [":--", *["--:"] * (len(header) - 1)]
    lines = [[markdown_text(cell) for cell in header], ends, *([markdown_text(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
