"""Prompt files: text with placeholders, checked when it is read and filled in a single pass."""

import re
from collections.abc import Mapping
from pathlib import Path

from sipo_pl.messages.errors import UserError, nearest

SHIPPED = Path(__file__).parent
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


def read_prompt_file(path: Path, required: set[str], optional: set[str]) -> str:
    """Read a prompt file, without the blanks around its text.

    Args:
        path: a UTF-8 text file.
        required: names of the placeholders that it must hold, each written as ``{name}``.
        optional: names of those that it may hold besides.

    Raises:
        UserError: unreadable or empty, or a placeholder is missing or unknown; the message names the file.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not text:
        raise UserError(f"{path}: empty; expected a prompt with {_listed(required)}")
    check_placeholders(text, str(path), required, optional)
    return text


def check_placeholders(text: str, where: str, required: set[str], optional: set[str]) -> None:
    """Raise UserError, beginning with `where`, unless `text` holds all `required` placeholders and no unknown one."""
    found = {match[1]: match.start() for match in reversed(list(_PLACEHOLDER.finditer(text)))}
    known = required | optional
    for name, start in sorted(found.items(), key=lambda item: item[1]):
        if name not in known:
            line = text.count("\n", 0, start) + 1
            raise UserError(f"{where}: line {line}: unknown placeholder {{{name}}}{nearest(name, known)}")
    if missing := required - found.keys():
        raise UserError(f"{where}: no placeholder {_listed(missing)}; it must hold {_listed(required)}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace each placeholder by its value, in one pass: braces and placeholders inside the values stay."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def heading_of(text: str, placeholder: str, where: str) -> re.Pattern[str]:
    """Return a pattern for the line at which a text in the form of `text` begins its next `placeholder` part.

    The heading is what precedes the placeholder on its line, or else the nearest line above that is not blank, which
    must then fill a line by itself.

    Raises:
        UserError: see `heading_text`.
    """
    heading, inline = heading_text(text, placeholder, where)
    end = "" if inline else r"[ \t]*$"
    return re.compile(rf"^[ \t]*{re.escape(heading)}{end}", re.MULTILINE)


def heading_text(text: str, placeholder: str, where: str) -> tuple[str, bool]:
    """Return the heading of the `placeholder` part of `text`, and whether it stands on the placeholder's own line.

    Raises:
        UserError: there is no heading, or it holds a placeholder.
    """
    before = text[: text.index("{" + placeholder + "}")]
    *above, inline = before.split("\n")
    heading = inline.strip() or next((line.strip() for line in reversed(above) if line.strip()), "")
    if not heading or _PLACEHOLDER.search(heading):
        raise UserError(
            f"{where}: {{{placeholder}}} needs a heading, such as a line '### Question' above it: "
            "a generated text is cut where the heading comes again"
        )
    return heading, bool(inline.strip())


def _listed(names: set[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
