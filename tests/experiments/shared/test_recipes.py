"""A recipe trains the bits of `jaxlm train`."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxlm
from experiments.shared.recipes import read_recipe, train_recipe
from jaxlm.runs.train import start_run
from jaxlm.text.dataset import load_dataset


def test_read_recipe_with_the_users_options():
    config = read_recipe("minute", seed=4)
    assert (config.num_steps, config.weight_decay, config.vocab_size, config.seed) == (8000, 1e-4, 4096, 4)
    quick = read_recipe("ten_minutes", quick_steps=300)
    assert (quick.num_steps, quick.dropout, quick.vocab_size, quick.seed) == (300, 0.1, 512, 0)


@pytest.mark.stress
def test_train_recipe_gives_the_bits_of_jaxlm_train(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. a rat sat on a hat!\n" * 60)
    sizes = {"vocab_size": 256, "embedding_dim": 2, "hidden_dim": 3, "log_every": 2}
    config = replace(read_recipe("ten_minutes", quick_steps=3), text=text, device="cpu", **sizes)
    data = load_dataset("", text, "bpe", vocab_size=256)
    here = train_recipe(config, 256, data.train_ids, data.val_ids)
    _, variables, _ = jaxlm.load_model(start_run(config, tmp_path / "run"))
    assert jax.tree.all(jax.tree.map(np.array_equal, here.variables, variables))
    assert here.perplexity == jaxlm.perplexity(here.model, variables, data.val_ids)
    with pytest.raises(ValueError, match="patience must be None, got 2"):
        train_recipe(replace(config, patience=2), 256, data.train_ids, data.val_ids)
