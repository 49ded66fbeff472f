"""The contract of the linker: libattention.so exports the functions that
lib/attention.h declares as public and nothing else, and what libattention.a has for
the linker to see, its private functions too, is named attn_."""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "http"))

import harness  # noqa: E402

BUILD = Path(harness.binary()).parent
HEADER = re.sub(r"/\*.*?\*/", "", (REPOSITORY / "lib" / "attention.h").read_text(), flags=re.S)

# A declaration: from a word at a line's start to its semicolon, with the function's
# name right in front of the first bracket; a macro that is in front of it counts.
DECLARATION = re.compile(r"^(?!#|typedef|struct|enum|extern|\s)([^;{}#()]*?)\b(\w+)\s*\(([^;{}]*)\)\s*;",
                         re.M)


def declared():
    return [(match.group(1), match.group(2)) for match in DECLARATION.finditer(HEADER)]


def symbols(*arguments):
    """Names that are defined and seen from outside, whatever their kind."""
    output = subprocess.run(["nm", "--defined-only", *arguments], check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    return {fields[2] for fields in map(str.split, output.splitlines()) if len(fields) == 3}


def test_every_declaration_is_public():
    functions = declared()
    assert len(functions) > 30, "the header was not understood"
    assert all("ATTN_PUBLIC" in words for words, _ in functions), [
        name for words, name in functions if "ATTN_PUBLIC" not in words]
    assert HEADER.count("ATTN_PUBLIC ") == len(functions) + HEADER.count("define ATTN_PUBLIC ")


def test_the_shared_library_exports_what_is_declared():
    exported = symbols("--dynamic", BUILD / "libattention.so")
    assert exported == {name for _, name in declared()}


def test_the_static_library_keeps_to_its_prefix():
    seen = symbols("--extern-only", BUILD / "libattention.a")
    assert {name for _, name in declared()} <= seen
    assert {name for name in seen if not name.startswith("attn_")} == set()
