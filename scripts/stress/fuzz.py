"""Mutated inputs through everything that reads a file: each must be refused in plain words, or mean what it did.

    scripts/fuzz --inputs 10000 --seed 0

Saved models, exported files, tokenizers, configs and texts are damaged in one of many ways: random bytes, cuts,
changed bits, deep JSON, huge numbers, names with `../`, NaN, links, pipes, folders, files swapped. About half of
the changes are sealed again, with every sum that depends on them, so that they reach the checks of the fields.

A violation is an error that is neither ValueError nor OSError, another model than the original where nothing was
sealed again, one that does not fit together, too much time or memory, or any change on the disk. It is told with
the index of its input, which `--only` runs alone. 10,000 inputs take 6 minutes on a core.
"""

import argparse
import contextlib
import copy
import dataclasses
import errno
import faulthandler
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

import jaxlm
from jaxlm.runs.config import config_from_json, config_to_json, read_config, resolve
from jaxlm.utils.checksums import file_checksums

TEXT = "the cat sat on the mat; the dog ate the cat's hat.\n" * 4
SECONDS = 20.0  # for one input, on a machine that may be busy
MEMORY = 96 * 2**20  # beyond five times what the input's files hold: a text's bytes, and 4 for a character
TARGETS = {"model": 8, "exported": 4, "tokenizer": 4, "config": 3, "text": 2}  # and how often each is taken


@dataclasses.dataclass
class Tally:
    """What became of the inputs of one kind."""

    inputs: int = 0
    refused: int = 0
    same: int = 0
    other: int = 0
    slowest: float = 0.0
    memory: int = 0


class Violation(Exception):
    """Something that must not happen to any input."""


class Raw(str):
    """JSON that Python's own values cannot spell."""


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


# The originals.


def make_originals(folder: Path) -> dict[str, list[Path]]:
    """Small valid files of every kind, by target."""
    tokenizers = [jaxlm.CharTokenizer.train(TEXT), jaxlm.ByteTokenizer(), jaxlm.BPETokenizer.train(TEXT, 270)]
    ngrams = jaxlm.CountsNgramLM(5, 2, jaxlm.KneserNey(0.5), table="sparse")
    models: list[tuple[Any, Any]] = [
        (jaxlm.CountsBigramLM(tokenizers[0].vocab_size, smoothing=0.5), tokenizers[0]),
        (jaxlm.NeuralBigramLM(256, 2), tokenizers[1]),
        (jaxlm.MLPLanguageModel(tokenizers[2].vocab_size, 2, 3, 4), tokenizers[2]),
        (jaxlm.MixtureLM((jaxlm.MLPLanguageModel(5, 2, 3, 4), ngrams), (0.25, 0.75)), None),
    ]
    originals = {target: [folder / f"{target}{number}" for number in range(4)] for target in TARGETS}
    for number, (model, tokenizer) in enumerate(models):
        variables = jaxlm.init(model, jax.random.key(number))
        if isinstance(model, jaxlm.MixtureLM):
            variables = (variables[0], ngrams.fit(variables[1], np.arange(40) ** 2 % 5))
        jaxlm.save_model(originals["model"][number], model, variables, tokenizer)
        jaxlm.export_model(originals["exported"][number], model, variables, tokenizer)
    for path, tokenizer in zip(originals["tokenizer"], [*tokenizers, jaxlm.CharTokenizer("ab")], strict=True):
        tokenizer.save(path)
    configs = [{}, {"model": "counts", "smoothing": 0.5}, {"tokenizer": "char", "lr": 1, "text": "a/b.txt"}]
    for path, options in zip(originals["config"], [*configs, {"model": "bigram", "clip_norm": None}], strict=True):
        config = resolve(config_from_json(options, origin="here"))
        path.write_text(json.dumps(config_to_json(config)), "utf-8")
    for path, text in zip(originals["text"], [TEXT, "é日本語😀\r\n" * 9, "\ufeffx", "\0\n"], strict=True):
        path.write_bytes(text.encode())
    return originals


def load(target: str, path: Path) -> Any:
    """What a reader gets of the input: the call that is tested."""
    match target:
        case "model":
            return jaxlm.load_model(path)
        case "exported":
            return jaxlm.import_model(path)
        case "tokenizer":
            return jaxlm.load_tokenizer(path)
        case "config":
            return resolve(read_config(path))
        case _:
            return jaxlm.read_text(path)


def check_use(target: str, path: Path, found: Any) -> None:
    """Raises an AssertionError unless what was accepted fits together and can be used."""
    if target == "config":
        assert resolve(config_from_json(config_to_json(found), origin=path)) == found
    elif target == "text":
        assert found.text.encode() == path.read_bytes()
        assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    elif target == "tokenizer":
        check_tokenizer(found)
    else:
        model, variables, tokenizer = found
        like = jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
        assert jax.tree.structure(like) == jax.tree.structure(variables)
        for leaf, wanted in zip(jax.tree.leaves(variables), jax.tree.leaves(like), strict=True):
            # How many n-grams there are is the file's to say.
            assert isinstance(model, jaxlm.MixtureLM) or leaf.shape == wanted.shape
            assert leaf.dtype == wanted.dtype
            assert np.isfinite(leaf).all()
            assert leaf.dtype != np.int32 or np.asarray(leaf).min() >= 0
        contexts = np.zeros((1, model.context_length), np.int32)
        assert jax.eval_shape(model.apply, variables, contexts).shape == (1, model.vocab_size)
        if isinstance(model, jaxlm.MixtureLM):
            assert abs(float(np.exp(model.apply(variables, contexts)).sum()) - 1) < 1e-3
        if tokenizer is not None:
            assert tokenizer.vocab_size <= model.vocab_size
            check_tokenizer(tokenizer)


def check_tokenizer(tokenizer: Any) -> None:
    text = getattr(tokenizer, "characters", TEXT)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


def is_same(found: Any, original: Any) -> bool:
    if not isinstance(found, tuple):
        return found == original or getattr(found, "sha256", 0) == getattr(original, "sha256", 1)
    if jax.tree.structure(found[1]) != jax.tree.structure(original[1]):
        return False
    pairs = zip(jax.tree.leaves(found[1]), jax.tree.leaves(original[1]), strict=True)
    return (found[0], found[2]) == (original[0], original[2]) and all(
        leaf.dtype == twin.dtype and np.asarray(leaf).tobytes() == np.asarray(twin).tobytes()
        for leaf, twin in pairs
    )


# Mutations of bytes: of whatever file it is.


def cut(rng: random.Random, data: bytearray) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def change_bits(rng: random.Random, data: bytearray) -> bytes:
    for _ in range(rng.choice([1, 1, 2, 8])):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def write_random(rng: random.Random, data: bytearray) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 8, len(data), 4096]))


def splice(rng: random.Random, data: bytearray) -> bytes:
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    place = rng.randrange(len(data) + 1)
    part = rng.choice([b"", b"\0" * (last - first), rng.randbytes(last - first), bytes(data[place:]), b"\xff\xfe"])
    return data[:first] + part + data[last:]


BYTES = {"cut": cut, "bits": change_bits, "random": write_random, "splice": splice}


def mutate_bytes(rng: random.Random, kind: str, path: Path) -> None:
    path.write_bytes(BYTES[kind](rng, bytearray(path.read_bytes())))


# Mutations of the file as an entry of its folder.


def mutate_entry(rng: random.Random, path: Path, others: list[Path], outside: Path) -> None:
    """A link to the same content elsewhere, a pipe, a folder, nothing, a sparse giant, another original."""
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


# Mutations of JSON.


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every container in the document with each of its keys."""
    found, containers = [], [document]
    for container in containers:
        if isinstance(container, dict | list):
            keys = list(container) if isinstance(container, dict) else range(len(container))
            found += [(container, key) for key in keys]
            containers += [container[key] for key in keys]
    return found


def mutate_json(rng: random.Random, document: Any) -> None:
    """Changes one to three places of the document: another value, another name, one less, one twice."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        container, key = rng.choice(places(document) or [({}, None)])
        kind = rng.choice(["value", "value", "value", "other", "lose", "name", "more"])
        if key is None:
            continue
        if kind == "value":
            container[key] = copy.deepcopy(rng.choice(HOSTILE))
        elif kind == "other":
            container[key] = copy.deepcopy(rng.choice([other[name] for other, name in places(document)]))
        elif kind == "lose":
            del container[key]
        elif isinstance(container, list):
            container.insert(rng.randrange(len(container) + 1), copy.deepcopy(container[key]))
        else:
            value = container.pop(key) if kind == "name" else copy.deepcopy(container[key])
            container[rng.choice(["", "x", "../x", "name", "parent", "self", "\ud800", *map(str, container)])] = (
                value
            )


def write_json(path: Path, document: Any, *, sealed: bool) -> None:
    path.write_text(json_text(document, sealed=sealed), "utf-8", errors="surrogatepass")


def json_text(document: Any, *, sealed: bool) -> str:
    """The document with its raw parts, and a right sum where it is sealed and what it says can be read at all."""
    text = raw_text(document)
    if sealed and isinstance(document, dict):
        with contextlib.suppress(ValueError, RecursionError):
            plain = {name: value for name, value in json.loads(text).items() if name != "sha256"}
            canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
            text = raw_text({**document, "sha256": hashlib.sha256(canonical.encode()).hexdigest()})
    return text


def raw_text(document: Any) -> str:
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


# Mutations of a saved model that are consistent in all its files.


def enlarge(rng: random.Random, folder: Path, document: dict[str, Any]) -> None:
    """Declares a size of the model to be another one, in every place that knows of it."""
    name = rng.choice(sorted(document["fields"]))
    was, now = (
        document["fields"][name],
        rng.choice([0, -1, 1, 2, 1000, 10**6, 10**9, 2**31, 2**40, 2**63, 10**30, 0.5]),
    )
    document["fields"][name] = now
    for size in ("vocab_size", "context_length"):
        document[size] = now if size == name else document[size]
    if rng.random() < 0.7:
        for number, array in enumerate(document["arrays"]):
            array["shape"] = [now if size == was else size for size in array["shape"]]
            path = folder / "variables" / f"{number:06d}" / ".zarray"
            write_json(
                path,
                json.loads(path.read_text()) | {"shape": array["shape"], "chunks": array["shape"]},
                sealed=False,
            )


def poison(rng: random.Random, folder: Path, _: dict[str, Any]) -> None:
    """Puts a number that no model has, or just another one, into an array."""
    chunks = [path for path in folder.glob("variables/*/0*") if path.name.strip("0.") == ""]
    path = rng.choice(sorted(chunks))
    data = bytearray(path.read_bytes())
    place = 4 * rng.randrange(len(data) // 4)
    number = rng.choice(
        [struct.pack("<f", value) for value in (np.nan, np.inf, -np.inf, 1e38)] + [struct.pack("<i", -1)]
    )
    data[place : place + 4] = number
    path.write_bytes(data)


def retype(rng: random.Random, folder: Path, document: dict[str, Any]) -> None:
    """Declares an array to be of another dtype, in its own description, in the index, or in both."""
    number = rng.randrange(len(document["arrays"]))
    dtype, short = rng.choice(
        [
            ("int32", "<i4"),
            ("float64", "<f8"),
            ("float16", "<f2"),
            ("bfloat16", "bfloat16"),
            ("x", "x"),
            ("object", "|O"),
        ]
    )
    if rng.random() < 0.7:
        document["arrays"][number]["dtype"] = dtype
    if rng.random() < 0.7:
        path = folder / "variables" / f"{number:06d}" / ".zarray"
        write_json(path, json.loads(path.read_text()) | {"dtype": short}, sealed=False)


def add_file(rng: random.Random, folder: Path, document: dict[str, Any]) -> None:
    """Adds a file that Orbax or Python would take notice of, or the sum of one that lies elsewhere."""
    name = rng.choice(
        [
            "manifest.ocdbt",
            "checkpoint",
            "000009/.zarray",
            "_sharding",
            "_strings.json",
            "x.py",
            "d/manifest.ocdbt",
        ]
    )
    path = folder / "variables" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(rng.choice([b"", b"{}", rng.randbytes(64)]))
    if rng.random() < 0.3:
        document["files"][rng.choice(["../../canary", "/etc/passwd", "..", "", "a/../000000/0"])] = [6, "0" * 64]


WHOLE = {"enlarge": enlarge, "poison": poison, "retype": retype, "add": add_file}


def mutate_model(rng: random.Random, kind: str, folder: Path, others: list[Path], outside: Path) -> bool:
    """Damages a saved model's folder. Returns whether it may now be another model, all sums being right again."""
    described = folder / "model.json"
    document = json.loads(described.read_text("utf-8"))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sealed, damaged = rng.random() < 0.5, None
    if kind in WHOLE:
        WHOLE[kind](rng, folder, document)
    elif kind == "json":
        parts = [path for path in files if path.name in (".zarray", "_METADATA", "tokenizer.json")]
        damaged = rng.choice([described, rng.choice(parts)])
        inner = document if damaged == described else json.loads(damaged.read_text("utf-8"))
        mutate_json(rng, inner)
        write_json(damaged, inner, sealed=sealed)
    elif kind == "entry":
        damaged = rng.choice([*files, folder, folder / "variables", folder / "variables" / "000000"])
        twins = [other / damaged.relative_to(folder) for other in others]
        mutate_entry(rng, damaged, [twin for twin in twins if twin.exists()], outside)
        if damaged == folder:
            return True
    else:
        damaged = rng.choice(files)
        mutate_bytes(rng, kind, damaged)
    if damaged == described:
        return sealed and kind == "json"
    if sealed:
        with contextlib.suppress(ValueError, OSError):
            document["files"] = file_checksums(folder / "variables")
        if (folder / "tokenizer.json").is_file():
            content = (folder / "tokenizer.json").read_bytes()
            document["tokenizer_sha256"] = hashlib.sha256(content).hexdigest()
    if sealed or kind in WHOLE:
        write_json(described, document, sealed=sealed)
    return sealed


def mutate_exported(rng: random.Random, kind: str, path: Path) -> bool:
    """Damages an exported file's header, metadata, or tensors. Returns whether all sums are right again."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    sealed = rng.random() < 0.5
    document = json.loads(header["__metadata__"]["jaxlm"])
    if kind == "json":
        mutate_json(rng, document)
    elif kind == "header":
        mutate_json(rng, header)
    else:
        place = 4 * rng.randrange(len(body) // 4)
        body[place : place + 4] = struct.pack("<f", rng.choice([np.nan, np.inf, 1e38, -1.0]))
    if kind != "header":
        if sealed and kind != "json":
            document["tensors_sha256"] = sum_of_tensors(safetensors.numpy.load(data[: 8 + length] + bytes(body)))
        header["__metadata__"]["jaxlm"] = json_text(document, sealed=sealed)
    text = raw_text(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(body))
    return sealed


def sum_of_tensors(tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}{list(tensor.shape)}".encode() + tensor.tobytes())
    return digest.hexdigest()


def mutate(rng: random.Random, target: str, kind: str, path: Path, others: list[Path], outside: Path) -> bool:
    """Damages the input at `path`. Returns whether what it then says may be valid and yet another thing."""
    if target == "model":
        return mutate_model(rng, kind, path, others, outside)
    if kind == "entry":
        mutate_entry(rng, path, others, outside)
        return True
    if kind in BYTES:
        mutate_bytes(rng, kind, path)
        return target in ("config", "text")
    if target == "exported":
        return mutate_exported(rng, kind, path)
    document = json.loads(path.read_text("utf-8"))
    mutate_json(rng, document)
    sealed = target == "tokenizer" and rng.random() < 0.5
    write_json(path, document, sealed=sealed)
    return sealed or target == "config"


KINDS = {
    "model": [*BYTES, "entry", "json", "json", "json", *WHOLE, "enlarge"],
    "exported": [*BYTES, "entry", "json", "json", "header", "header", "numbers"],
    "tokenizer": [*BYTES, "entry", "json", "json", "json", "json"],
    "config": ["cut", "bits", "random", "entry", "json", "json", "json", "json"],
    "text": [*BYTES, "entry"],
}


# One input.


def run_input(
    seed: int, index: int, originals: dict[str, list[Path]], root: Path
) -> tuple[str, str, str, float, int]:
    """Target, kind, outcome, seconds and bytes of memory of one input. Raises a Violation."""
    rng = random.Random(f"{seed} {index}")  # noqa: S311
    target = rng.choices(list(TARGETS), list(TARGETS.values()))[0]
    kind = rng.choice(KINDS[target])
    original = rng.choice(originals[target])
    path, outside = root / "inputs" / f"{target}-{index}", root / "outside"
    for folder in (path.parent, outside):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
    may_differ = mutate(rng, target, kind, path, originals[target], outside)
    before, size = listing(root), sum(entry[1] for entry in listing(path.parent).values())
    found, outcome = None, "same"
    with time_limit(), peak_memory() as memory:
        begin = time.perf_counter()
        try:
            found = load(target, path)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise Violation("memory ran out") from error
            outcome = "refused"
        except ValueError as error:
            outcome = "refused"
            str(error).encode("utf-8", "backslashreplace")
        except BaseException as error:
            raise Violation(f"{type(error).__name__}: {error!s:.300}") from error
        seconds = time.perf_counter() - begin
    if memory[0] > MEMORY + 5 * size:
        raise Violation(f"{memory[0] / 2**20:.0f} MiB of memory for an input of {size} bytes")
    if listing(root) != before:
        raise Violation("files have changed")
    if found is not None:
        try:
            check_use(target, path, found)
        except Exception as error:
            raise Violation(f"what was accepted cannot be used: {error!r:.300}") from error
        if not is_same(found, load(target, original)):
            outcome = "other"
            if not may_differ:
                raise Violation("accepted as another than it was")
    return target, kind, outcome, seconds, memory[0]


def listing(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every entry below `folder`, with what changes as it is written."""
    found, folders = {}, [str(folder)]
    for each in folders:
        for entry in os.scandir(each):
            status = entry.stat(follow_symlinks=False)
            found[entry.path] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
    return found


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raises a Violation after `SECONDS`; where no Python runs that could raise it, ends the process."""

    def stop(*_: Any) -> None:
        raise Violation(f"no answer in {SECONDS:.0f} s")

    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(SECONDS + 60, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """By how many bytes the process grew in between, at most, in a list of one; 0 on what is not Linux."""
    grown = [0]
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        yield grown
        return
    before = _status("VmRSS:")
    yield grown
    grown[0] = max(_status("VmHWM:") - before, 0)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    return 0


# All of them.


def run(inputs: Iterator[int], seed: int, print_plain: Callable[[str], None] = print) -> int:
    """Runs the inputs and prints the table. Returns the number of violations."""
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    violations = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        (root / "originals").mkdir()
        (root / "canary").write_text("canary", "utf-8")
        originals = make_originals(root / "originals")
        for target, paths in originals.items():  # so that what JAX and others set up once is no input's
            for path in paths:
                check_use(target, path, load(target, path))
        for count, index in enumerate(inputs):
            try:
                target, kind, outcome, seconds, memory = run_input(seed, index, originals, root)
            except Violation as violation:
                violations += 1
                print_plain(f"VIOLATION --seed {seed} --only {index}: {violation}")
                if violation.__cause__ is not None:
                    print_plain("".join(traceback.format_exception(violation.__cause__)[-4:]))
                continue
            tally = tallies[target, kind]
            tally.inputs += 1
            setattr(tally, outcome, getattr(tally, outcome) + 1)
            tally.slowest, tally.memory = max(tally.slowest, seconds), max(tally.memory, memory)
            if count % 500 == 499:
                jax.clear_caches()  # of programs for models of every size
        print_plain(table(tallies))
    return violations


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    heads = ("input", "change", "inputs", "refused", "same", "other", "slowest", "memory")
    lines = ["{:<10} {:<8} {:>6} {:>7} {:>5} {:>5} {:>10} {:>8}".format(*heads)]
    total = Tally()
    for (target, kind), tally in sorted(tallies.items()):
        lines.append(_row(target, kind, tally))
        for name in ("inputs", "refused", "same", "other"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
        total.slowest, total.memory = max(total.slowest, tally.slowest), max(total.memory, tally.memory)
    return "\n".join([*lines, _row("all", "", total)])


def _row(target: str, kind: str, tally: Tally) -> str:
    return (
        f"{target:<10} {kind:<8} {tally.inputs:>6} {tally.refused:>7} {tally.same:>5} {tally.other:>5} "
        f"{1000 * tally.slowest:>7.0f} ms {tally.memory / 2**20:>4.0f} MiB"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="every choice follows from it (default: %(default)s)")
    parser.add_argument("--only", type=int, help="run just the input of this index")
    options = parser.parse_args()
    chosen = range(options.inputs) if options.only is None else [options.only]
    begin = time.monotonic()
    violations = run(iter(chosen), options.seed)
    print(f"{len(chosen)} inputs, seed {options.seed}: {violations} violations, {time.monotonic() - begin:.0f} s")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
