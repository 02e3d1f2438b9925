"""Damage a file: its bytes, its directory entry, or the JSON in it."""

import contextlib
import copy
import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any


class Raw(str):
    """JSON text that no Python value serializes to."""


HOSTILE = (
    *(None, True, False, 0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e300, 3.0),
    *(
        "",
        "x",
        "../../canary",
        "/etc/passwd",
        "a\0b",
        "\ud800",
        "\x1b[2J",
        "x" * 10_000,
        "float64",
        "object",
        "(1,",
    ),
    *([], {}, [[]], {"": ""}, [1] * 1000, [10**9, 10**9], ["..", "..", "canary"], {"version": 2}),
    *map(Raw, ("NaN", "-Infinity", "1e999", "1" * 5000, "1e-999", "-", "'x'", "01", "[" * 50_000 + "]" * 50_000)),
    *(Raw("[" * depth + "]" * depth) for depth in (100, 900, 960, 980, 990)),
    Raw('{"a":' * 950 + "1" + "}" * 950),
)
HOSTILE_WORDS = (
    *(b"", b" ", b"\t", b"\r", b"0", b"1", b"-99", b"-100", b"0.1", b"nan", b"-inf", b"inf", b"1e999", b"-1e-999"),
    *(b"1_0", b"9" * 5000, b"-" + b"9" * 5000, b"x" * 10_000, b"\xff", b"\0", "\x85".encode(), "\uff11".encode()),
    *(
        b"<s>",
        b"</s>",
        b"<unk>",
        b"\\data\\",
        b"\\1-grams:",
        b"\\2-grams:",
        b"\\end\\",
        b"ngram 2=1",
        b"999999999999",
    ),
)


def cut(rng: random.Random, data: bytearray) -> bytes:
    """Truncate at a random position."""
    return data[: rng.randrange(len(data) + 1)]


def change_bits(rng: random.Random, data: bytearray) -> bytes:
    """Flip one to eight bits."""
    for _ in range(rng.choice([1, 1, 2, 8])):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def write_random(rng: random.Random, data: bytearray) -> bytes:
    """Replace everything with random bytes."""
    return rng.randbytes(rng.choice([0, 1, 8, len(data), 4096]))


def splice(rng: random.Random, data: bytearray) -> bytes:
    """Replace, insert or delete a random slice."""
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    place = rng.randrange(len(data) + 1)
    part = rng.choice([b"", b"\0" * (last - first), rng.randbytes(last - first), bytes(data[place:]), b"\xff\xfe"])
    return data[:first] + part + data[last:]


def mutate_lines(rng: random.Random, data: bytearray) -> bytes:
    """Delete or repeat one to three lines, or replace one of their words."""
    lines = data.split(b"\n")
    for _ in range(rng.choice([1, 1, 2, 3])):
        place = rng.randrange(len(lines))
        kind = rng.choice(["delete", "repeat", "word", "word", "word"])
        if kind == "word":
            words = re.split(rb"([\t =])", lines[place])
            words[rng.randrange(len(words))] = rng.choice(HOSTILE_WORDS)
            lines[place] = b"".join(words)
        else:
            line = lines.pop(place)
            lines += [line] if not lines else []
            if kind == "repeat":
                lines[place:place] = [line] * rng.choice([2, 2, 1000])
    return b"\n".join(lines)


BYTES = {"cut": cut, "bits": change_bits, "random": write_random, "splice": splice}


def mutate_bytes(rng: random.Random, kind: str, path: Path) -> None:
    """Apply one of `BYTES` to a file."""
    path.write_bytes(BYTES[kind](rng, bytearray(path.read_bytes())))


def mutate_entry(rng: random.Random, path: Path, others: list[Path], outside: Path) -> None:
    """Replace the file with a link, a pipe, a directory, nothing, a large sparse file or another original."""
    kind = rng.choice(["link", "dead link", "loop", "pipe", "folder", "missing", "giant", "swap", "endless"])
    moved = outside / "moved"
    path.rename(moved)
    if kind == "link":
        path.symlink_to(moved)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "dead link":
        path.symlink_to(outside / "nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "giant":
        with contextlib.suppress(IsADirectoryError):
            shutil.copy(moved, path)
            os.truncate(path, rng.choice([2**16, 2**26]))
    elif kind == "swap":
        other = rng.choice(others)
        (shutil.copytree if other.is_dir() else shutil.copy)(other, path)


def find_places(document: Any) -> list[tuple[Any, Any]]:
    """Return every container in the document, paired with each of its keys."""
    found, containers = [], [document]
    for container in containers:
        if isinstance(container, dict | list):
            keys = list(container) if isinstance(container, dict) else range(len(container))
            found += [(container, key) for key in keys]
            containers += [container[key] for key in keys]
    return found


def mutate_json(rng: random.Random, document: Any) -> None:
    """Change one to three places of the document: replace, rename, delete or duplicate an entry."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        container, key = rng.choice(find_places(document) or [({}, None)])
        kind = rng.choice(["value", "value", "value", "other", "delete", "name", "duplicate"])
        if key is None:
            continue
        if kind == "value":
            container[key] = copy.deepcopy(rng.choice(HOSTILE))
        elif kind == "other":
            container[key] = copy.deepcopy(rng.choice([other[name] for other, name in find_places(document)]))
        elif kind == "delete":
            del container[key]
        elif isinstance(container, list):
            container.insert(rng.randrange(len(container) + 1), copy.deepcopy(container[key]))
        else:
            value = container.pop(key) if kind == "name" else copy.deepcopy(container[key])
            container[rng.choice(["", "x", "../x", "name", "parent", "self", "\ud800", *map(str, container)])] = (
                value
            )


def write_json(path: Path, document: Any, *, valid_checksum: bool) -> None:
    """Write the document as JSON, with a valid checksum if requested."""
    path.write_text(to_json(document, valid_checksum=valid_checksum), "utf-8", errors="surrogatepass")


def to_json(document: Any, *, valid_checksum: bool) -> str:
    """Serialize the document, with a valid checksum if requested and if the text parses."""
    text = serialize(document)
    if valid_checksum and isinstance(document, dict):
        with contextlib.suppress(ValueError, RecursionError):
            plain = {name: value for name, value in json.loads(text).items() if name != "sha256"}
            canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
            text = serialize({**document, "sha256": hashlib.sha256(canonical.encode()).hexdigest()})
    return text


def serialize(document: Any) -> str:
    """Serialize a document that may contain `Raw` text."""
    raws: list[str] = []

    def mark(value: Any) -> Any:
        if isinstance(value, Raw):
            raws.append(str(value))
            return f"raw{len(raws) - 1}!"
        if isinstance(value, dict):
            return {name: mark(each) for name, each in value.items()}
        return [mark(each) for each in value] if isinstance(value, list) else value

    text = json.dumps(mark(document))
    for number, raw in enumerate(raws):
        text = text.replace(f'"raw{number}!"', raw)
    return text
