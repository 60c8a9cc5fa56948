"""Reads text files: UTF-8 or UTF-16, with any byte-order mark and any line endings, in every locale."""

from __future__ import annotations

import codecs
from pathlib import Path

from capprune_runtime.errors import DataError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    r"""Return the text of a file, with line endings `\n`.

    Raises:
        DataError: It cannot be read, or is neither UTF-8 nor UTF-16 with a byte-order mark.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError("the captions cannot be read", where=path, found=error.strerror) from error
    return decode_text(content, path)


def decode_text(content: bytes, where: object) -> str:
    r"""Decode the bytes of a text file, with line endings `\n`.

    Raises:
        DataError: They are neither UTF-8 nor UTF-16 with a byte-order mark; the message names the line.
    """
    encoding = "utf-16" if content.startswith(_UTF_16) else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            "a text file is not UTF-8",
            where=f"{where}, line {line}",
            found=f"the byte 0x{content[error.start]:02x}",
            hint=f"iconv -f WINDOWS-1252 -t UTF-8 {where} > new.txt, with the encoding that it was saved in",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")


def numbered_lines(text: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, each with its number from 1.

    Only a newline ends a line: captions may hold the other separators of `str.splitlines`.
    """
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
