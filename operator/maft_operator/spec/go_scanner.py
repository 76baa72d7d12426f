"""PyYAML's parser with the few rules of go-yaml v2 that differ: tabs, plain scalars in flow collections, escapes. Pure."""

import yaml
from yaml.scanner import ScannerError
from yaml.tokens import DirectiveToken, ScalarToken

_BREAKS = "\r\n\x85\u2028\u2029"
_ENDS = f"\0 \t{_BREAKS}"


_ESCAPES = {**{sign: text for sign, text in yaml.SafeLoader.ESCAPE_REPLACEMENTS.items() if sign != "/"}, "'": "'"}


class Events(yaml.SafeLoader):
    """Yields a document's events; its resolver and constructor are not used."""

    ESCAPE_REPLACEMENTS = _ESCAPES  # type: ignore[misc] # final

    def scan_to_next_token(self) -> None:
        """Skips blanks, comments and line breaks. PyYAML stops at any tab, go-yaml only where one would be indentation."""
        while True:
            self._skip_blanks()
            if self.peek() == "#":
                while self.peek() not in f"\0{_BREAKS}":
                    self.forward()
            if not self.scan_line_break():  # type: ignore[no-untyped-call]
                return
            if not self.flow_level:
                self.allow_simple_key = True

    def _skip_blanks(self) -> None:
        if self.index == 0 and self.peek() == "\ufeff":
            self.forward()
        while self.peek() == " " or (self.peek() == "\t" and (self.flow_level or not self.allow_simple_key)):
            self.forward()

    def scan_directive(self) -> DirectiveToken:
        """Reads a directive; PyYAML ignores those that it does not know."""
        token: DirectiveToken = super().scan_directive()
        if token.name not in ("YAML", "TAG"):
            raise ScannerError("while scanning a directive", token.start_mark, "found unknown directive name", token.start_mark)
        return token

    def scan_block_scalar_indicators(self, start_mark: yaml.Mark) -> tuple[bool | None, int | None]:
        """Reads what stands behind | or >; a comment may follow at once."""
        keep = indent = None
        for _ in range(2):
            if keep is None and self.peek() in "+-":
                keep = self.peek() == "+"
            elif indent is None and self.peek() in "123456789":
                indent = int(self.peek())
            else:
                break
            self.forward()
        while self.peek() in " \t":
            self.forward()
        return keep, indent

    def scan_block_scalar_indentation(self) -> tuple[list[str], int, yaml.Mark]:
        """Looks for the first line's indentation; a tab is none."""
        scanned: tuple[list[str], int, yaml.Mark] = super().scan_block_scalar_indentation()
        self._check_indentation()
        return scanned

    def scan_block_scalar_breaks(self, indent: int) -> tuple[list[str], yaml.Mark]:
        """Reads line breaks and the next line's indentation; a tab is none."""
        scanned: tuple[list[str], yaml.Mark] = super().scan_block_scalar_breaks(indent)
        if self.column < indent:
            self._check_indentation()
        return scanned

    def _check_indentation(self) -> None:
        if self.peek() == "\t":
            where = self.get_mark()
            raise ScannerError("while scanning a block scalar", where, "found a tab where indentation by spaces is expected", where)

    def scan_plain(self) -> ScalarToken:
        """Reads a plain scalar over all its lines. A tab is a blank in it, and a colon ends it only before a blank."""
        start = end = self.get_mark()
        indent = self.indent + 1
        text, gap, broken = "", "", False
        while self.peek() != "#" and not self._is_document_mark():
            if length := self._word():
                text += gap + self.prefix(length)
                self.forward(length)
                end, broken = self.get_mark(), False
            if self.peek() not in f" \t{_BREAKS}":
                break
            gap, broken = self._gap(indent, start)
            if not self.flow_level and self.column < indent:
                break
        if broken:
            self.allow_simple_key = True
        return ScalarToken(text, True, start, end)

    def _is_document_mark(self) -> bool:
        return self.column == 0 and self.prefix(3) in ("---", "...") and self.peek(3) in _ENDS

    def _word(self) -> int:
        """The length of what is neither blank nor an indicator."""
        length = 0
        while (ch := self.peek(length)) not in _ENDS:
            if (ch == ":" and self.peek(length + 1) in _ENDS) or (self.flow_level and ch in ",?[]{}"):
                break
            length += 1
        return length

    def _gap(self, indent: int, start: yaml.Mark) -> tuple[str, bool]:
        """What joins two words, and whether a line ended between them."""
        spaces = ""
        breaks: list[str] = []
        while (ch := self.peek()) in f" \t{_BREAKS}":
            if ch in _BREAKS:
                breaks.append(self.scan_line_break())  # type: ignore[no-untyped-call]
                continue
            if breaks and ch == "\t" and self.column < indent:
                raise ScannerError("while scanning a plain scalar", start, "found a tab that violates indentation", self.get_mark())
            spaces += ch
            self.forward()
        if not breaks:
            return spaces, False
        return "".join(breaks[1:]) or " " if breaks[0] == "\n" else "".join(breaks), True
