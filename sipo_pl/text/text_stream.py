"""The text of a response while its tokens come in."""

from sipo_pl.text.templates import PromptTemplate

UNFINISHED = "\ufffd"  # what the first bytes of a character are decoded to


class TextStream:
    """Turns tokens into pieces of text that together are the decoded response.

    Args:
        template: decodes.
    """

    def __init__(self, template: PromptTemplate) -> None:
        self.template = template
        self.token_ids: list[int] = []
        self.text = ""

    def push(self, token_id: int) -> str:
        """Take a token; return the text that is certain now, which may be empty within a character."""
        self.token_ids.append(token_id)
        whole = self.template.decode(self.token_ids)
        return self._more(whole.rstrip(UNFINISHED))

    def close(self) -> str:
        """Return what was held back."""
        return self._more(self.template.decode(self.token_ids))

    def _more(self, whole: str) -> str:
        if not whole.startswith(self.text):
            return ""
        piece, self.text = whole[len(self.text) :], whole
        return piece
