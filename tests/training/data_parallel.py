"""Train, evaluate and count on all devices, and print the results: for tests in processes of their own.

Usage: data_parallel.py NUM_PROCESSES PROCESS_ID PORT GRAD_SHARDS [NUM_DEVICES]
"""

import hashlib
import json
import sys

import jax
import numpy as np
import optax
from jax.sharding import Mesh

import jaxlm
from jaxlm.devices.distributed import initialize
from jaxlm.devices.mesh import put, sharding_of, to_local


def digest(tree):
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()


def main(num_processes, process_id, port, grad_shards, num_devices=None):
    if num_processes > 1:
        initialize(f"127.0.0.1:{port}", num_processes, process_id)
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("data",))
    ids = np.random.default_rng(0).integers(0, 30, 3000) // 3 * 3
    model = jaxlm.MLPLanguageModel(31, 2, 8, 16, dropout=0.2 if grad_shards else 0.0)
    options = {"num_steps": 200, "batch_size": 16, "lr": 0.5, "val_ids": ids[:500], "log_every": 40}
    trained, history = jaxlm.train_lm(
        model, ids, key=jax.random.key(1), mesh=mesh, grad_shards=grad_shards or None, **options
    )
    split = put(np.arange(mesh.size), sharding_of(mesh, "data"))
    assert mesh.size == 1 or to_local(split) is split
    counts = jaxlm.CountsBigramLM(31)
    table = counts.fit(jaxlm.init(counts, jax.random.key(0)), ids, mesh=mesh)
    perplexity = jaxlm.evaluate(counts, table, ids, mesh=mesh).perplexity
    result = {"variables": digest(trained), "counts": digest(table), "perplexity": perplexity} | history
    if not grad_shards:  # L-BFGS differentiates the loss again, in its line search
        search = {"optimizer": optax.lbfgs(), "num_steps": 4, "log_every": 1}
        _, searched = jaxlm.train_lm(model, ids, key=jax.random.key(1), batch_size=16, mesh=mesh, **search)
        result["line_search_losses"] = searched["train_losses"]
    print(json.dumps(result | {"devices": mesh.size, "processes": jax.process_count()}))
    if num_processes > 1:
        jax.distributed.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
