"""Texts and tables of texts for papers and readmes: Markdown and LaTeX; every text is escaped here."""

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

# what Markdown reads as more than a character; the last three begin links by themselves
_MARKS = re.compile(r"[\\|*_`<>\[\]&#~$]|:(?=//)|(?<=www)\.|@")

TableRows = Iterable[Sequence[str]]


def latex_text(text: str) -> str:
    """Return a text that LaTeX sets as it stands."""
    return "".join(LATEX.get(character, character) for character in _line(text))


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
    """Return a text that stands in a line of Markdown, or in a cell of a table, as it is: no HTML, picture or link."""
    return _MARKS.sub(r"\\\g<0>", _line(text))


def markdown_code(text: str) -> str:
    """Return a text as code in a line of Markdown, as it is."""
    line = _line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    blank = " " if "`" in line or line != line.strip() else ""
    return f"{fence}{blank}{line}{blank}{fence}"


def _line(text: str) -> str:
    """Return a text in one line, without control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", " ".join(text.splitlines()))


def markdown_table(header: Sequence[str], rows: TableRows) -> str:
    """Return a Markdown table, its first column to the left and the others to the right."""
    ends = [":--", *["--:"] * (len(header) - 1)]
    lines = [[markdown_text(cell) for cell in header], ends, *([markdown_text(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
