"""Make classes of the lists in `stubs/`: what the app's Java is compiled against where the SDK is not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from machine import ANDROID_DEMO, BuildFailed

FOLDER = ANDROID_DEMO / "stubs"
_TYPE = re.compile(r"(?:public |static |final |abstract )*(class|interface|enum) (\w+)")
_BODY = '{ throw new RuntimeException("a stub"); }'
# What a field gets whose value only a device knows, so that javac does not copy it.
_UNKNOWN, _NOTHING = "static String unknown()", '{ return ""; }'


@dataclass(frozen=True)
class Member:
    """One member of a class of Android: the class and member as a dex file names them, and the API level that brought it."""

    owner: str
    name: str
    level: int


def write_stubs(listing: Path, out: Path) -> list[Member]:
    """Write one Java file for each class of a listing; every member that it names.

    Raises:
        BuildFailed: A line is not as expected.
    """
    members: list[Member] = []
    package, source, nested = "", [""], [("", False)]  # the classes around a line, and whether each is an interface
    for number, raw in enumerate(listing.read_text().splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, is_interface = nested[-1]
        if line.startswith("package "):
            package = line.removeprefix("package ")
        elif found := _TYPE.match(line):
            source = [*source, line] if name else [f"package {package};", f"public {line}"]
            nested.append((f"{name}${found[2]}".lstrip("$"), found[1] == "interface"))
        elif line == "}":
            source.append(line)
            nested.pop()
            if len(nested) == 1:
                _write(out / package.replace(".", "/") / f"{name}.java", source)
        elif name:
            declaration, _, level = line.partition(";")
            members.append(Member(f"L{package.replace('.', '/')}/{name};", _name(declaration), int(level.strip() or 0)))
            source.append(declaration if ";" not in line else _with_body(declaration, is_interface))
        else:
            raise BuildFailed(f"{listing.name}, line {number}: {line!r} stands in no class")
    return members


def _with_body(declaration: str, is_interface: bool) -> str:
    """A method that does nothing, or a field as it is."""
    is_method = "(" in declaration and "=" not in declaration
    if not is_method or is_interface or " abstract " in declaration:
        return f"{declaration};"
    return f"{declaration} {_NOTHING if declaration == _UNKNOWN else _BODY}"


def _name(declaration: str) -> str:
    """Of a member: what stands before its arguments, its value or its end; of a constructor `<init>`."""
    found = re.search(r"(\w+)(?:\(| =|$)", declaration)
    assert found is not None, "every line of a class names something"
    return found[1] if re.search(r"\w \w+(?:\(| =|$)", declaration.removeprefix("public ")) else "<init>"


def _write(file: Path, source: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(source) + "\n")
