"""Mutations of saved models, and the choice of a mutation for each kind of input."""

import contextlib
import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from mutations import BYTES, mutate_bytes, mutate_entry, mutate_json, serialize, to_json, write_json

from jaxlm.utils.checksums import file_checksums


def enlarge(rng: random.Random, folder: Path, document: dict[str, Any]) -> None:
    """Change a size of the model in every file that states it."""
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
                valid_checksum=False,
            )


def poison(rng: random.Random, folder: Path, _: dict[str, Any]) -> None:
    """Write NaN, infinity, a huge or a negative number into an array."""
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
    """Change the dtype of an array in its Zarr metadata, in the index, or in both."""
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
        write_json(path, json.loads(path.read_text()) | {"dtype": short}, valid_checksum=False)


def add_file(rng: random.Random, folder: Path, document: dict[str, Any]) -> None:
    """Add a file that Orbax or Python might read, or the checksum of a file outside the directory."""
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


MODEL = {"enlarge": enlarge, "poison": poison, "retype": retype, "add": add_file}


def mutate_model(rng: random.Random, kind: str, folder: Path, others: list[Path], outside: Path) -> bool:
    """Damage a model directory. Return whether all checksums are valid again, so that it may be another model."""
    spec_path = folder / "model.json"
    document = json.loads(spec_path.read_text("utf-8"))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    valid_checksum, damaged = rng.random() < 0.5, None
    if kind in MODEL:
        MODEL[kind](rng, folder, document)
    elif kind == "json":
        parts = [path for path in files if path.name in (".zarray", "_METADATA", "tokenizer.json")]
        damaged = rng.choice([spec_path, rng.choice(parts)])
        inner = document if damaged == spec_path else json.loads(damaged.read_text("utf-8"))
        mutate_json(rng, inner)
        write_json(damaged, inner, valid_checksum=valid_checksum)
    elif kind == "entry":
        damaged = rng.choice([*files, folder, folder / "variables", folder / "variables" / "000000"])
        twins = [other / damaged.relative_to(folder) for other in others]
        mutate_entry(rng, damaged, [twin for twin in twins if twin.exists()], outside)
        if damaged == folder:
            return True
    else:
        damaged = rng.choice(files)
        mutate_bytes(rng, kind, damaged)
    if damaged == spec_path:
        return valid_checksum and kind == "json"
    if valid_checksum:
        with contextlib.suppress(ValueError, OSError):
            document["files"] = file_checksums(folder / "variables")
        if (folder / "tokenizer.json").is_file():
            content = (folder / "tokenizer.json").read_bytes()
            document["tokenizer_sha256"] = hashlib.sha256(content).hexdigest()
    if valid_checksum or kind in MODEL:
        write_json(spec_path, document, valid_checksum=valid_checksum)
    return valid_checksum


def mutate_exported(rng: random.Random, kind: str, path: Path) -> bool:
    """Damage the header, metadata or tensors of an exported file. Return whether all checksums are valid again."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    valid_checksum = rng.random() < 0.5
    document = json.loads(header["__metadata__"]["jaxlm"])
    if kind == "json":
        mutate_json(rng, document)
    elif kind == "header":
        mutate_json(rng, header)
    else:
        place = 4 * rng.randrange(len(body) // 4)
        body[place : place + 4] = struct.pack("<f", rng.choice([np.nan, np.inf, 1e38, -1.0]))
    if kind != "header":
        if valid_checksum and kind != "json":
            document["tensors_sha256"] = tensors_checksum(safetensors.numpy.load(data[: 8 + length] + bytes(body)))
        header["__metadata__"]["jaxlm"] = to_json(document, valid_checksum=valid_checksum)
    text = serialize(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(body))
    return valid_checksum


def tensors_checksum(tensors: dict[str, Any]) -> str:
    """Compute the checksum that an exported file stores for its tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}{list(tensor.shape)}".encode() + tensor.tobytes())
    return digest.hexdigest()


def mutate(rng: random.Random, target: str, kind: str, path: Path, others: list[Path], outside: Path) -> bool:
    """Damage the input at `path`. Return whether the result may be valid and differ from the original."""
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
    valid_checksum = target == "tokenizer" and rng.random() < 0.5
    write_json(path, document, valid_checksum=valid_checksum)
    return valid_checksum or target == "config"


KINDS = {
    "model": [*BYTES, "entry", "json", "json", "json", *MODEL, "enlarge"],
    "exported": [*BYTES, "entry", "json", "json", "header", "header", "numbers"],
    "tokenizer": [*BYTES, "entry", "json", "json", "json", "json"],
    "config": ["cut", "bits", "random", "entry", "json", "json", "json", "json"],
    "text": [*BYTES, "entry"],
}
