"""A mixture against its formula, and its weights against the best of a fine grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm import AddK, CountsNgramLM, MixtureLM, mixture_weights
from jaxlm.models.interface import compute_training_logits

VOCAB = 6
IDS = np.random.default_rng(0).choice(VOCAB, 600, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])
MODELS = (
    CountsNgramLM(VOCAB, 2, AddK(0.5)),
    jaxlm.NeuralBigramLM(VOCAB, 3),
    jaxlm.MLPLanguageModel(VOCAB, 4, 3, 5),
)
WEIGHTS = (0.5, 0.2, 0.3)


@pytest.fixture(scope="module")
def variables():
    fresh = [jaxlm.init(model, jax.random.key(index)) for index, model in enumerate(MODELS)]
    random = np.random.default_rng(1)
    drawn = [
        jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), each)
        for each in fresh[1:]
    ]
    return (MODELS[0].fit(fresh[0], IDS), *drawn)


def probabilities(model, variables, contexts):
    return np.asarray(jax.nn.softmax(model.apply(variables, contexts)), np.float64)


def test_the_mixture_is_the_weighted_sum_of_probabilities(variables):
    contexts = np.random.default_rng(2).integers(0, VOCAB, (20, 4))
    mixture = MixtureLM(MODELS, WEIGHTS)
    assert (mixture.vocab_size, mixture.context_length) == (VOCAB, 4)
    expected = sum(
        weight * probabilities(model, own, contexts[:, 4 - model.context_length :])
        for weight, model, own in zip(WEIGHTS, MODELS, variables, strict=True)
    )
    np.testing.assert_allclose(np.exp(mixture.apply(variables, contexts)), expected, rtol=1e-5)


def test_targets_are_scored_as_by_the_whole_distribution(variables):
    mixture = MixtureLM(MODELS, WEIGHTS)
    contexts = np.random.default_rng(3).integers(0, VOCAB, (30, 4))
    rows = np.arange(30)[::-1]
    targets = np.random.default_rng(4).integers(0, VOCAB, 30)
    expected = np.asarray(mixture.apply(variables, contexts))[rows, targets]
    np.testing.assert_allclose(mixture.target_log_probs(variables, contexts)(rows, targets), expected, rtol=1e-5)


def test_a_token_that_is_impossible_for_one_is_possible_for_the_mixture():
    counts = CountsNgramLM(3, 1, AddK(0))
    fitted = counts.fit(jaxlm.init(counts, jax.random.key(0)), [0, 1, 0, 1])
    mixture = MixtureLM((counts, CountsNgramLM(3, 0, AddK(1))), (0.5, 0.5))
    fresh = jaxlm.init(mixture, jax.random.key(0))
    log_probs = np.asarray(mixture.apply((fitted, fresh[1]), [[0], [2]]))
    np.testing.assert_allclose(np.exp(log_probs), [[1 / 6, 4 / 6, 1 / 6], [1 / 6] * 3], rtol=1e-5)


def test_all_of_the_weight_on_one_is_that_one(variables):
    contexts = np.random.default_rng(5).integers(0, VOCAB, (9, 4))
    mixture = MixtureLM(MODELS, (0.0, 0.0, 1.0))
    expected = jax.nn.log_softmax(MODELS[2].apply(variables[2], contexts))
    np.testing.assert_allclose(mixture.apply(variables, contexts), expected, atol=1e-5)


def test_a_mixture_samples_and_is_evaluated_as_every_model(variables):
    mixture = MixtureLM(MODELS, WEIGHTS)
    assert jaxlm.sample(mixture, variables, IDS[:4], 5, key=jax.random.key(0)).shape == (9,)
    contexts = np.lib.stride_tricks.sliding_window_view(IDS, 5)
    log_probs = np.asarray(mixture.apply(variables, contexts[:, :4]), np.float64)
    expected = np.exp(-log_probs[np.arange(len(contexts)), contexts[:, 4]].mean())
    assert jaxlm.perplexity(mixture, variables, IDS) == pytest.approx(expected, rel=1e-5)


def test_fitted_weights_are_the_best_of_a_fine_grid(variables):
    held_out = np.random.default_rng(6).choice(VOCAB, 400, p=[0.3, 0.3, 0.1, 0.1, 0.1, 0.1])
    models, own = MODELS[:2], variables[:2]
    fitted = mixture_weights(models, own, held_out)
    assert sum(fitted) == pytest.approx(1)
    windows = np.lib.stride_tricks.sliding_window_view(held_out, 3)
    each = [
        probabilities(model, vs, windows[:, 2 - model.context_length : 2])[np.arange(len(windows)), windows[:, 2]]
        for model, vs in zip(models, own, strict=True)
    ]
    grid = np.linspace(0, 1, 1001)
    likelihoods = [np.log(share * each[0] + (1 - share) * each[1]).mean() for share in grid]
    assert fitted[0] == pytest.approx(grid[int(np.argmax(likelihoods))], abs=2e-3)
    assert 0.02 < fitted[0] < 0.98  # or the test would not tell EM from a choice of one


@pytest.mark.parametrize(
    ("models", "weights", "message"),
    [
        ((), (), "there is no model to mix"),
        (MODELS, (0.5, 0.5), "3 models need as many weights, got 2"),
        (MODELS, (0.5, 0.5, 0.5), r"sum to 1, got \[0.5, 0.5, 0.5\], which sum to 1.5"),
        (MODELS, (1.5, -0.5, 0.0), "at least 0"),
        ((MODELS[0], jaxlm.NeuralBigramLM(7, 2)), (0.5, 0.5), "NeuralBigramLM has vocab_size=7, CountsNgramLM 6"),
    ],
)
def test_what_is_no_mixture_is_a_value_error(models, weights, message):
    with pytest.raises(ValueError, match=message):
        MixtureLM(models, weights)


def test_variables_are_a_tuple_of_those_of_the_models(variables):
    with pytest.raises(ValueError, match="a tuple of those of its 3 models"):
        MixtureLM(MODELS, WEIGHTS).apply(variables[:2], IDS[None, :4])


def test_a_token_that_no_model_can_give_is_an_error():
    counts = CountsNgramLM(3, 1, AddK(0))
    fitted = counts.fit(jaxlm.init(counts, jax.random.key(0)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="token 2 of held_out_ids has no probability under any model"):
        mixture_weights([counts], [fitted], [0, 1, 2, 0])


def test_a_mixture_is_trained_with_the_noise_of_its_models():
    network = jaxlm.MLPLanguageModel(VOCAB, 2, 3, 50, dropout=0.5)
    mixture = MixtureLM((network, network), (0.25, 0.75))
    variables = jaxlm.init(mixture, jax.random.key(0))
    contexts = np.random.default_rng(2).integers(0, VOCAB, (20, 2))
    expected = sum(
        weight
        * np.asarray(
            jax.nn.softmax(network.apply_in_training(own, contexts, jax.random.fold_in(jax.random.key(1), index)))
        )
        for index, (weight, own) in enumerate(zip(mixture.weights, variables, strict=True))
    )
    found = np.exp(compute_training_logits(mixture, variables, contexts, jax.random.key(1)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - np.exp(mixture.apply(variables, contexts))).max() > 1e-3
