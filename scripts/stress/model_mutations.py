"""Damage saved models, and choose a mutation for each kind of input."""

import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from mutations import BYTES, mutate_bytes, mutate_entry, mutate_json, mutate_lines, serialize, to_json, write_json

NO_CHECKSUM = "config", "text", "hugging_face", "arpa"
SIZES = (0, -1, 1, 2, 1000, 10**6, 10**9, 2**31, 2**40, 2**63, 10**30, 0.5)


def mutate_model(rng: random.Random, kind: str, path: Path) -> bool:
    """Damage the header, metadata or tensors of a saved model. Return whether all checksums are valid again."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    valid_checksum = rng.random() < 0.5
    document = json.loads(header["__metadata__"]["jaxlm"])
    if kind == "json":
        mutate_json(rng, document)
    elif kind == "header":
        mutate_json(rng, header)
    elif kind == "enlarge":
        name = rng.choice(sorted(document["fields"]))
        document["fields"][name] = size = rng.choice(SIZES)
        document |= {name: size} if name in document else {}
    else:
        place = 4 * rng.randrange(len(body) // 4)
        body[place : place + 4] = struct.pack("<f", rng.choice([np.nan, np.inf, 1e38, -1.0]))
    if kind != "header":
        if valid_checksum and kind == "numbers":
            document["tensors_sha256"] = tensors_checksum(safetensors.numpy.load(data[: 8 + length] + bytes(body)))
        header["__metadata__"]["jaxlm"] = to_json(document, valid_checksum=valid_checksum)
    text = serialize(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(body))
    return valid_checksum


def tensors_checksum(tensors: dict[str, Any]) -> str:
    """Compute the checksum that a saved model stores for its tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}{list(tensor.shape)}".encode() + tensor.tobytes())
    return digest.hexdigest()


def mutate(rng: random.Random, target: str, kind: str, path: Path, others: list[Path], outside: Path) -> bool:
    """Damage the input at `path`. Return whether the result may be valid and differ from the original."""
    if kind == "entry":
        mutate_entry(rng, path, others, outside)
        return True
    if kind in BYTES:
        mutate_bytes(rng, kind, path)
        return target in NO_CHECKSUM
    if kind == "lines":
        path.write_bytes(mutate_lines(rng, bytearray(path.read_bytes())))
        return True
    if target == "model":
        return mutate_model(rng, kind, path)
    document = json.loads(path.read_text("utf-8"))
    mutate_json(rng, document)
    valid_checksum = target == "tokenizer" and rng.random() < 0.5
    write_json(path, document, valid_checksum=valid_checksum)
    return valid_checksum or target in NO_CHECKSUM


KINDS = {
    "model": [*BYTES, "entry", "json", "json", "header", "header", "numbers", "enlarge"],
    "tokenizer": [*BYTES, "entry", "json", "json", "json", "json"],
    "hugging_face": [*BYTES, "entry", "json", "json", "json", "json"],
    "arpa": [*BYTES, "entry", "lines", "lines", "lines", "lines"],
    "config": ["cut", "bits", "random", "entry", "json", "json", "json", "json"],
    "text": [*BYTES, "entry"],
}
