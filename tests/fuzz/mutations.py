"""Seeded mutations of files: of their bytes, and of the data that they hold."""

import json
import random
import re
from copy import deepcopy
from typing import Any

WORDS = [
    *(
        [
            "null",
            "~",
            "true",
            "yes",
            "off",
            ".nan",
            "-.inf",
            "1e-3",
            "1e999",
            "0",
            "-1",
            "0123",
            "0x_",
            "0b_",
            "1_000",
            "2:30",
            "2026-13-45",
            "9223372036854775807",
        ]
    ),
    *(
        [
            "&a",
            "*a",
            "<<:",
            "!!int",
            "!!python/object:os.system",
            "!!binary",
            "!!set",
            "!!timestamp",
            "---",
            "...",
            "?",
            "|",
            ">",
            "%YAML",
            "%TAG",
            "@",
            "`",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "#",
            "-",
        ]
    ),
    *(["\\ud83d", "\\UFFFFFFFF", "\\x00", "'"]),
    '"',
    "\t",
    "\n",
    "\r\n",
    "\x00",
    "\ufeff",
    "\x85",
    "é😀",
    " ",
    "- ",
    ": ",
    "[" * 100,
    "{a: " * 100,
    "9" * 400,
    "x" * 5000,
]
"""Put between the bytes of a text."""

SCALARS = [
    *(
        [
            "2026-13-45",
            "0000-00-00",
            "2026-01-01T25:61:61Z",
            "0x_",
            "0b_",
            "0o9",
            "-0x",
            "1_",
            "1e",
            "1e-3",
            "+.e5",
            "2:30",
            "-190:20:30",
            "=",
            "<<",
            "<<:",
            "~",
            "!",
            "yes",
        ]
    ),
    *(
        '!!int "" !!int x !!float "" !!bool x !!null x !!timestamp x !!binary x'.replace(" !!", "\n!!").split(
            "\n"
        )
    ),
    *(
        [
            "!!python/name:os.system x",
            "!!set {a}",
            "!!omap [a: 1]",
            "!!pairs [a]",
            "!!map [1]",
            "!!seq {}",
            "!x y",
            "!<a> b",
        ]
    ),
    *(
        [
            "&a [*a]",
            "&a {b: *a}",
            "*gone",
            "{<<: 3}",
            "{<<: [1]}",
            "{<<: &b {c: *b}}",
            "{a: 1, a: 2}",
            "{[1]: 2}",
            "{{}: 1}",
            "{? a}",
        ]
    ),
    *(['"\\ud83d"', '"\\ude00\\ud83d"', '"\\UFFFFFFFF"', '"\\x0"', '"a\\', '"', "'a", "“a”"]),
    "[" * 3000 + "]" * 3000,
    "{a: " * 3000 + "1" + "}" * 3000,
    "9" * 5000,
    "0x" + "f" * 5000,
    "1." + "0" * 5000,
    "[&a [x], "
    + ", ".join(f"&{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]" for n in range(20))
    + "]",
]
"""Written in the place of a value."""

VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3.5,
        1e-9,
        -1e30,
        1e308,
        2**53,
        2**63 - 1,
        10**20,
        "",
        " ",
        "x",
        "0",
        "none",
        "~",
    ),
    *(
        "../..",
        "a/b",
        "x" * 10_000,
        "é😀",
        "a\nb",
        "a\x00b",
        "{}",
        "[1]",
        "${HOME}",
        "%s",
        "\\",
        "'\"",
        "\u202e",
        [],
        {},
    ),
    *(
        [[]],
        [{}],
        [None],
        [0, 1],
        {"": 1},
        {"a": {"b": {}}},
        {"kind": 3},
        {"kind": []},
        {"choice": []},
        [1] * 300,
    ),
    *(
        {"ref": "depth"},
        {"same": "x"},
        {"one_of": []},
        {"int": [3, 1]},
        {"float": [0, "a"]},
        {"stack": {}},
        {"set": [1]},
    ),
    *(
        "base.params",
        "params <",
        "(" * 50,
        "2 ** 9 ** 9 <= 3",
        "depth <= 9999999999999999999999",
        "not " * 40 + "true",
    ),
]
"""Put in place of what a file holds."""


def mutated_bytes(content: bytes, rng: random.Random, words: bool = True) -> bytes:
    """`content` with a few changes, of any kind."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        start = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 4, 40, 400))
        match rng.randrange(7 if words else 6):
            case 0:
                data[start : start + length] = b""
            case 1:
                data[start:start] = rng.randbytes(length)
            case 2 if start < len(data):
                data[start] ^= 1 << rng.randrange(8)
            case 3:
                data[start:start] = data[start : start + length] * rng.choice((1, 2, 20))
            case 4:
                other = rng.randrange(len(data) + 1)
                data[start : start + length] = data[other : other + length]
            case 5 if rng.random() < 0.3:
                del data[start:]
            case _ if words:
                data[start : start + rng.choice((0, length))] = rng.choice(WORDS).encode()
    return bytes(data)


def mutated_values(text: str, rng: random.Random) -> str:
    """A YAML text with one or two of its values written otherwise."""
    for _ in range(rng.choice((1, 1, 2))):
        found = list(_VALUE.finditer(text))
        if found:
            place = rng.choice(found)
            text = text[: place.start(1)] + rng.choice(SCALARS) + text[place.end(1) :]
    return text


_VALUE = re.compile(r"(?:[:,\[] |- |\[)([^\s,\[\]{}#][^,\[\]{}\n#]*)")


def mutated_data(data: Any, rng: random.Random) -> Any:
    """A copy of plain data with a few parts replaced, renamed, moved, doubled or left out."""
    data = json.loads(json.dumps(data))
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(data))
        if not places:
            return deepcopy(rng.choice(VALUES))
        holder, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice((str(key)[:-1], f"{key}x", "kind", "", "é"))] = holder.pop(key)
            case 2:
                other, there = rng.choice(places)
                holder[key] = json.loads(json.dumps(other[there])) if _has(other, there) else None
            case 3 if isinstance(holder, list):
                holder[key:key] = holder[key : key + 3] * rng.choice((1, 40))
            case 4 if isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
                holder[key] = rng.choice(
                    (
                        -holder[key],
                        holder[key] * 1000,
                        holder[key] + 1,
                        str(holder[key]),
                        0,
                        float(holder[key]),
                    )
                )
            case _:
                holder[key] = deepcopy(rng.choice(VALUES))
    return data


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _places(data: Any) -> Any:
    """Every (holder, key) in nested data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items):
        yield data, key
        yield from _places(value)
