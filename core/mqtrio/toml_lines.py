"""Find the line on which each key of a TOML text stands: tomllib doesn't tell."""

import re
import tomllib
from typing import Final

#: The way to a value: keys of tables, and positions in arrays from 0.
KeyPath = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"[^,\]}#\n]+")  # a number, a date or a boolean


def key_lines(text: str) -> dict[KeyPath, int]:
    """Give the line (from 1) of every key, table and array element in `text`.

    `text` must be what tomllib accepts; the caller has parsed it before. A table that is opened
    several times keeps its first line.
    """
    return _Scanner(text).scan()


class _Scanner:
    """One pass over the text; each method starts and ends at `position`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.line = 1
        self.lines: dict[KeyPath, int] = {}
        self.sizes: dict[KeyPath, int] = {}  # of arrays of tables, so far

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self.skip_blank():
            if self.accept("[["):
                table = self.next_element(self.key())
                self.accept("]]")
            elif self.accept("["):
                table = self.resolve(self.key())
                self.note(table)
                self.accept("]")
            else:
                self.pair(table)
        return self.lines

    def pair(self, table: KeyPath) -> None:
        """Read `key = value` in `table`."""
        path = table
        for part in self.key():
            path = (*path, part)
            self.note(path)
        self.accept("=")
        self.skip_blank()
        self.value(path)

    def key(self) -> list[str]:
        """Read a key with its dots."""
        parts = []
        while True:
            self.skip_blank()
            quoted = _STRING.match(self.text, self.position)
            bare = quoted or _BARE_KEY.match(self.text, self.position)
            assert bare is not None, "not what tomllib accepts"
            self.go_to(bare.end())
            # The escapes of a quoted key are tomllib's to read.
            parts.append(tomllib.loads(f"key = {bare[0]}")["key"] if quoted else bare[0])
            self.skip_blank()
            if not self.accept("."):
                return parts

    def value(self, path: KeyPath) -> None:
        """Pass over a value, noting the lines of what is inside."""
        string = _STRING.match(self.text, self.position)
        if string:
            self.go_to(string.end())
        elif self.accept("["):
            index = 0
            while self.skip_blank() and not self.accept("]"):
                self.note((*path, index))
                self.value((*path, index))
                index += 1
                self.skip_blank()
                self.accept(",")
        elif self.accept("{"):
            while self.skip_blank() and not self.accept("}"):
                self.pair(path)
                self.skip_blank()
                self.accept(",")
        else:
            plain = _PLAIN.match(self.text, self.position)
            assert plain is not None, "not what tomllib accepts"
            self.go_to(plain.end())

    def resolve(self, parts: list[str]) -> KeyPath:
        """Give the path of a table's header: an array of tables in it means its last element."""
        path: KeyPath = ()
        for part in parts:
            path = (*path, part)
            if path in self.sizes:
                path = (*path, self.sizes[path] - 1)
        return path

    def next_element(self, parts: list[str]) -> KeyPath:
        """Open one more element of an array of tables."""
        array = (*self.resolve(parts[:-1]), parts[-1])
        index = self.sizes.get(array, 0)
        self.sizes[array] = index + 1
        self.note(array)
        self.note((*array, index))
        return (*array, index)

    def note(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self.line)

    def skip_blank(self) -> bool:
        """Pass over space, ends of lines and comments; False at the end of the text."""
        blank = _BLANK.match(self.text, self.position)
        if blank:
            self.go_to(blank.end())
        return self.position < len(self.text)

    def accept(self, token: str) -> bool:
        found = self.text.startswith(token, self.position)
        if found:
            self.position += len(token)
        return found

    def go_to(self, position: int) -> None:
        self.line += self.text.count("\n", self.position, position)
        self.position = position
