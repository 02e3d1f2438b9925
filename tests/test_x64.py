"""All helpers work with `jax_enable_x64`."""

import os
import subprocess
import sys

import jax
import pytest

import jaxlm

PROGRAM = """
import json, sys
import jax, jaxlm, numpy as np
assert jax.config.jax_enable_x64
ids = np.random.default_rng(0).integers(0, 7, 300)
train_ids, val_ids = jaxlm.split_ids(ids)
key = jax.random.key(0)
counts = jaxlm.CountsBigramLM(7)
class Strict:
    vocab_size, context_length = 3, 1
    def apply(self, variables, contexts):
        assert contexts.dtype == np.int32
        return jax.numpy.zeros((len(contexts), 3)) + contexts
assert len(jaxlm.sample(Strict(), {}, [0], 9, key=key)) == 10
assert jaxlm.sample(jaxlm.UniformLM(7), {}, [0], 9, key=key).tolist() == json.loads(sys.argv[1])
mlp = jaxlm.MLPLanguageModel(7, 2, 3, 4)
variables, history = jaxlm.train_lm(mlp, train_ids, key=key, val_ids=val_ids, num_steps=5, log_every=2)
assert history["steps"] == [0, 2, 4]
models = [(counts, counts.fit(jaxlm.init(counts, key), train_ids)), (mlp, variables)]
for number, (model, variables) in enumerate(models):
    assert 1 < jaxlm.perplexity(model, variables, val_ids) < 14
    sample = jaxlm.sample(model, variables, ids[:2], 60, key=key, top_k=3, top_p=0.5)  # from a table of contexts
    assert sample.dtype == np.int32 and sample.shape == (62,)
    jaxlm.save_model(f"model-{number}", model, variables)
    loaded, loaded_variables, _ = jaxlm.load_model(f"model-{number}")
    assert jaxlm.perplexity(loaded, loaded_variables, val_ids) == jaxlm.perplexity(model, variables, val_ids)
"""


@pytest.mark.slow
def test_helpers_work_with_64_bit_numbers(tmp_path):
    """Sampling gives the same tokens as without x64."""
    ids = jaxlm.sample(jaxlm.UniformLM(7), {}, [0], 9, key=jax.random.key(0)).tolist()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(ids)],
        cwd=tmp_path,
        env=os.environ | {"JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
