"""Sampling: the course's six behaviours, frequencies against probabilities computed in NumPy, and the edges."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxlm
from jaxlm.models.baselines import UnigramLM
from jaxlm.sampling import sample as sampling

VOCAB = 8
P_VALUE = 1e-4  # with fixed keys a test either always passes or always fails
LOGITS = np.array([0.3, 2.0, -1.0, 1.5, -np.inf, 0.9, -2.5, 1.9])  # no ties; token 4 is impossible
COUNTS = np.random.default_rng(0).integers(0, 9, (VOCAB, VOCAB)) + np.eye(VOCAB, k=1, dtype=int)


@dataclass(frozen=True)
class OneTable:
    """A reader's own model, no Flax module: the same logits [V] after every token."""

    vocab_size: int
    context_length: int = 1

    def apply(self, logits, contexts):
        return jnp.broadcast_to(logits[None, :], (len(contexts), self.vocab_size))


@dataclass(frozen=True)
class Zeros:
    """Every token equally likely, after contexts that must be int32."""

    vocab_size: int
    context_length: int

    def apply(self, variables, contexts):
        assert contexts.dtype == jnp.int32
        return jnp.zeros((len(contexts), self.vocab_size)) + contexts.sum(axis=1, keepdims=True) * 0.0


def far_from_uniform(model):
    """Fresh variables are nearly uniform; normal ones make every context prefer something else."""
    rng = np.random.default_rng(2)
    fresh = jaxlm.init(model, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), fresh)


def counts_model(table, smoothing):
    model = jaxlm.CountsBigramLM(len(table), smoothing)
    return model, {"counts": {"table": jnp.asarray(table, jnp.int32)}}


def network(model):
    return model, far_from_uniform(model)


def neural_bigram():
    return network(jaxlm.NeuralBigramLM(VOCAB, embedding_dim=3))


def mlp():
    return network(jaxlm.MLPLanguageModel(VOCAB, context_length=3, embedding_dim=2, hidden_dim=5))


def one_table():
    return OneTable(VOCAB), jnp.asarray(LOGITS, jnp.float32)


MODELS = {"counts": lambda: counts_model(COUNTS, 1.0), "neural_bigram": neural_bigram, "mlp": mlp}
for_every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)

PROMPT = np.array([7, 0, 5, 2, 3])  # longer than any context here
PROMPTS = np.array([[7, 0, 5, 2, 3], [1, 1, 6, 0, 4]])


def draw(make, prompt=PROMPT, num_tokens=12, key=0, **options):
    return np.asarray(jaxlm.sample(*make(), prompt, num_tokens, key=jax.random.key(key), **options))


@pytest.mark.course
@for_every_model
@pytest.mark.parametrize("prompt", [PROMPT, PROMPTS], ids=["P", "BP"])
def test_the_shape_is_the_prompts_and_num_tokens_more_in_int32(make, prompt):
    ids = jaxlm.sample(*make(), prompt, 12, key=jax.random.key(0))
    assert isinstance(ids, jax.Array)
    assert ids.shape == (*prompt.shape[:-1], 5 + 12)
    assert ids.dtype == jnp.int32


@pytest.mark.course
@for_every_model
@pytest.mark.parametrize("prompt", [PROMPT, PROMPTS], ids=["P", "BP"])
def test_the_prompt_stands_unchanged_in_front(make, prompt):
    np.testing.assert_array_equal(draw(make, prompt)[..., :5], prompt)


@pytest.mark.course
@for_every_model
def test_the_same_key_gives_the_same_ids_and_another_key_other_ids(make):
    first, again, other = draw(make, key=1), draw(make, key=1), draw(make, key=2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.course
@for_every_model
def test_temperature_zero_is_the_chain_of_likeliest_tokens(make):
    model, variables = make()
    chain = PROMPT.tolist()
    for _ in range(12):
        logits = model.apply(variables, np.array([chain[-model.context_length :]]))
        chain.append(int(np.argmax(np.asarray(logits)[0])))
    assert len(set(chain[5:])) > 1  # a chain of one token would show nothing
    for key in (0, 1):
        assert draw(make, temperature=0, key=key).tolist() == chain


@pytest.mark.course
@for_every_model
def test_every_id_is_in_the_vocabulary(make):
    drawn = draw(make, PROMPTS, num_tokens=300)[:, 5:]
    assert (np.unique(drawn) == np.arange(VOCAB)).all()  # all of them occur, and no other


@pytest.mark.course
@for_every_model
def test_only_the_last_context_of_a_longer_prompt_counts(make):
    model, _ = make()
    short = draw(make, PROMPT[-model.context_length :])
    np.testing.assert_array_equal(draw(make)[5:], short[model.context_length :])


# Frequencies.


def assert_follows(drawn, probabilities):
    """Chi-square of the tokens' frequencies; a token of probability zero must not occur at all."""
    observed = np.bincount(drawn, minlength=len(probabilities))
    possible = probabilities > 0
    assert observed[~possible].sum() == 0, f"drawn {observed}, but the probabilities are {probabilities}"
    if possible.sum() > 1:
        p_value = stats.chisquare(observed[possible], probabilities[possible] * len(drawn)).pvalue
        assert p_value > P_VALUE, f"{observed / len(drawn)} are not {probabilities} (p = {p_value:.1e})"


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def kept(logits, temperature=1.0, top_k=None, top_p=None):
    """Probabilities [V] after temperature, then the k likeliest, then the fewest of those that hold `top_p`."""
    probabilities = softmax(logits / temperature)
    ranked = np.argsort(-probabilities)
    probabilities[ranked[top_k:] if top_k else []] = 0
    probabilities /= probabilities.sum()
    if top_p is not None:
        shares = np.cumsum(probabilities[ranked])
        num_kept = np.searchsorted(shares, top_p) + 1  # the first share that reaches top_p is kept too
        probabilities[ranked[num_kept:]] = 0
    return probabilities / probabilities.sum()


def test_counts_are_drawn_at_their_smoothed_share():
    token = 2
    drawn = draw(lambda: counts_model(COUNTS, 0.5), np.full((20_000, 1), token), num_tokens=1)[:, 1]
    assert_follows(drawn, (COUNTS[token] + 0.5) / (COUNTS[token].sum() + 0.5 * VOCAB))


def test_the_mlp_is_drawn_at_the_share_of_its_equation():
    context = np.array([7, 0, 5])
    params = jax.tree.map(np.float64, mlp()[1]["params"])
    embedded = params["embedding"]["embedding"][context].ravel()
    hidden = np.tanh(embedded @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    logits = hidden @ params["projection"]["kernel"] + params["projection"]["bias"]
    drawn = draw(mlp, np.tile(context, (20_000, 1)), num_tokens=1)[:, 3]
    assert_follows(drawn, softmax(logits))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 3},
        {"top_p": 0.3},
        {"top_p": 0.8},
        {"temperature": 2.0, "top_p": 0.8},
        {"top_k": 4, "top_p": 0.8},
        {"temperature": 0.7, "top_k": 5, "top_p": 0.9},
    ],
    ids=str,
)
def test_options_shape_the_frequencies_as_numpy_says(options):
    drawn = draw(one_table, np.zeros((20_000, 1), int), num_tokens=1, **options)[:, 1]
    assert_follows(drawn, kept(LOGITS, **options))


def test_each_token_is_drawn_given_the_one_before_and_apart_from_all_others():
    ids = draw(lambda: counts_model(COUNTS, 0.0), np.zeros((100, 1), int), num_tokens=200)
    for before in range(VOCAB):
        assert_follows(ids[:, 1:][ids[:, :-1] == before], COUNTS[before] / COUNTS[before].sum())
    assert len(np.unique(ids, axis=0)) == 100  # no two streams share their random numbers


def test_a_token_of_probability_zero_is_never_drawn():
    ids = draw(lambda: counts_model(COUNTS, 0.0), np.arange(VOCAB)[:, None].repeat(2, axis=1), num_tokens=2000)
    assert (COUNTS == 0).any()
    assert (COUNTS[ids[:, 1:-1], ids[:, 2:]] > 0).all()


NARROWEST = [{"top_k": 1}, {"top_p": 1e-6}, {"top_p": 1e-60}, {"temperature": 1e-6}]
WIDEST = [{"top_k": VOCAB}, {"top_k": VOCAB + 1}, {"top_p": 1}, {"top_p": 1.0}]


@pytest.mark.parametrize("options", NARROWEST, ids=str)
def test_the_narrowest_options_are_greedy(options):
    np.testing.assert_array_equal(draw(mlp, **options), draw(mlp, temperature=0))


@pytest.mark.parametrize("options", WIDEST, ids=str)
def test_the_widest_options_keep_every_token(options):
    np.testing.assert_array_equal(draw(mlp, **options), draw(mlp))


def test_of_equal_logits_greedy_takes_the_first():
    ids = jaxlm.sample(OneTable(VOCAB), jnp.ones(VOCAB), [3], 2, key=jax.random.key(0), temperature=0)
    assert ids.tolist() == [3, 0, 0]


# Tables of distributions.


def large_counts():
    return counts_model(np.random.default_rng(3).integers(0, 5, (2000, 2000)), 0.1)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (mlp, {}),
        (neural_bigram, {"temperature": 0.6, "top_k": 5, "top_p": 0.7}),
        (large_counts, {}),
        (lambda: (UnigramLM(300), jnp.arange(300) * 7 % 40), {}),
    ],
    ids=["three_tokens", "one_token", "one_token_in_blocks", "no_token"],
)
def test_a_table_gives_the_tokens_that_the_model_gives(monkeypatch, make, options):
    """Long samples come from a table of all contexts. Small float32 models round the same in both."""
    model, _ = make()
    prompts = np.arange(6).reshape(2, 3)
    num_tokens = 20_000  # enough for a sum that rounds otherwise to show
    assert sampling.is_table_worthwhile(model, num_tokens, is_ranked=bool(options))
    from_table = draw(make, prompts, num_tokens, **options)
    monkeypatch.setattr(sampling, "_table_pays", lambda *_, is_ranked: False)
    np.testing.assert_array_equal(from_table, draw(make, prompts, num_tokens, **options))


def test_a_table_is_made_where_it_is_used_often_enough_and_fits():
    def pays(model, num_draws, is_ranked=False):
        return sampling.is_table_worthwhile(model, num_draws, is_ranked=is_ranked)

    assert not pays(jaxlm.NeuralBigramLM(1000, 2), 999)
    assert pays(jaxlm.NeuralBigramLM(1000, 2), 1000)
    assert pays(jaxlm.NeuralBigramLM(4096, 2), 10**9, is_ranked=True)
    assert not pays(jaxlm.NeuralBigramLM(7000, 2), 10**9)
    assert pays(jaxlm.MLPLanguageModel(27, 3, 2, 2), 27**3)
    assert not pays(jaxlm.MLPLanguageModel(27, 5, 2, 2), 10**9)
    assert not pays(jaxlm.MLPLanguageModel(2, 23, 2, 2), 10**9)
    assert not pays(jaxlm.MLPLanguageModel(np.int64(4096), 8, 2, 2), 10**9)  # in 64 bits 4096 ** 8 would be 0


@pytest.mark.parametrize("size", [(2, 18), (27, 3), (200, 1), (4096, 1)], ids=str)
def test_a_table_is_as_large_as_was_reckoned(size):
    """At most 160 MiB, and hardly more while it is made: with ranks, by the compiled program's own figures."""
    vocab_size, context_length = size
    model = Zeros(vocab_size, context_length)
    assert sampling.is_table_worthwhile(model, 10**9, is_ranked=True)
    lowered = sampling.tabulate.lower(model, {}, temperature=1.0, top_p=0.5, top_k=None, nucleus=True)
    memory = lowered.compile().memory_analysis()
    assert memory.output_size_in_bytes <= 160 * 2**20
    assert memory.temp_size_in_bytes <= 32 * 2**20


# The compiled loop.


@for_every_model
def test_a_longer_sample_begins_with_the_shorter(make):
    np.testing.assert_array_equal(draw(make, num_tokens=12), draw(make, num_tokens=300)[: 5 + 12])


@for_every_model
def test_one_prompt_is_the_row_of_a_batch_of_one(make):
    np.testing.assert_array_equal(draw(make, PROMPT), draw(make, PROMPT[None, :])[0])


@pytest.mark.parametrize("tokens_per_call", [7, 1000])
def test_more_tokens_than_one_compiled_call_holds_are_as_one_loop(monkeypatch, tokens_per_call):
    ids = draw(mlp, num_tokens=600)
    with monkeypatch.context() as patched:
        patched.setattr(sampling, "_TOKENS_PER_CALL", tokens_per_call)
        sampling.draw_tokens.clear_cache()  # the constant is part of the compiled program
        regrouped = draw(mlp, num_tokens=600)
    sampling.draw_tokens.clear_cache()
    np.testing.assert_array_equal(regrouped, ids)


@pytest.mark.slow
def test_how_many_random_numbers_are_drawn_at_once_changes_no_bit(monkeypatch):
    ids = draw(mlp, num_tokens=200)
    with monkeypatch.context() as patched:
        patched.setattr(sampling, "_TOKENS_PER_DRAW", 7)
        sampling.draw_tokens.clear_cache()
        regrouped = draw(mlp, num_tokens=200)
    sampling.draw_tokens.clear_cache()
    np.testing.assert_array_equal(regrouped, ids)


def test_a_second_call_and_another_num_tokens_compile_nothing():
    draw(mlp, top_p=0.5)
    compiled = sampling.draw_tokens._cache_size()
    draw(mlp, num_tokens=0, top_p=0.5)
    draw(mlp, num_tokens=300, key=4, top_p=0.6, temperature=0.8)
    draw(mlp, PROMPT[1:], num_tokens=1, top_p=0.7)
    assert sampling.draw_tokens._cache_size() == compiled


def test_a_table_is_compiled_once():
    def compiled():
        return sampling.draw_tokens._cache_size(), sampling.tabulate._cache_size()

    draw(neural_bigram, num_tokens=VOCAB - 1)
    draw(neural_bigram, num_tokens=VOCAB)
    before = compiled()
    for num_tokens in (3, VOCAB - 1, VOCAB, 70, 3000):
        draw(neural_bigram, num_tokens=num_tokens, key=num_tokens)
    assert compiled() == before


def test_no_tokens_asked_is_the_prompt():
    ids = draw(mlp, PROMPTS, num_tokens=0)
    np.testing.assert_array_equal(ids, PROMPTS)
    assert ids.dtype == np.int32


def test_the_prompt_may_be_a_list_a_numpy_or_a_jax_array():
    expected = draw(mlp)
    for prompt in (PROMPT.tolist(), PROMPT.astype(np.uint8), jnp.asarray(PROMPT)):
        np.testing.assert_array_equal(draw(mlp, prompt), expected)


# Pieces.


def pieces(make, prompt=PROMPT, num_tokens=12, key=0, **options):
    return list(sampling.sample_stream(*make(), prompt, num_tokens, key=jax.random.key(key), **options))


@for_every_model
@pytest.mark.parametrize("prompt", [PROMPT, PROMPTS], ids=["P", "BP"])
def test_the_pieces_are_the_sample_after_the_prompt(make, prompt):
    """70 tokens are more than are given random numbers at once, and enough for the bigrams' table."""
    ids = draw(make, prompt, num_tokens=70)
    for tokens_per_piece, lengths in ((1, [1] * 70), (7, [7] * 10), (64, [64, 6]), (71, [70]), (None, [70])):
        drawn = pieces(make, prompt, num_tokens=70, tokens_per_piece=tokens_per_piece)
        assert [piece.shape for piece in drawn] == [(*prompt.shape[:-1], length) for length in lengths]
        assert all(isinstance(piece, np.ndarray) and piece.dtype == np.int32 for piece in drawn)
        np.testing.assert_array_equal(np.concatenate(drawn, axis=-1), ids[..., 5:])


def test_pieces_larger_than_a_compiled_call_are_as_large_as_one():
    drawn = pieces(neural_bigram, num_tokens=2500, tokens_per_piece=2000)
    assert [len(piece) for piece in drawn] == [1024, 1024, 452]
    np.testing.assert_array_equal(np.concatenate(drawn), draw(neural_bigram, num_tokens=2500)[5:])


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}], ids=str)
def test_options_shape_the_pieces_as_they_shape_the_sample(options):
    drawn = pieces(mlp, PROMPTS, num_tokens=30, tokens_per_piece=7, **options)
    np.testing.assert_array_equal(
        np.concatenate(drawn, axis=1), draw(mlp, PROMPTS, num_tokens=30, **options)[:, 5:]
    )


def test_all_tokens_together_choose_whether_a_table_is_made(monkeypatch):
    """A table pays for 40 tokens of a vocabulary of 8, whatever the size of a piece."""
    asked = []
    table_pays = sampling.is_table_worthwhile

    def recording(model, num_draws, *, is_ranked):
        asked.append(num_draws)
        return table_pays(model, num_draws, is_ranked=is_ranked)

    monkeypatch.setattr(sampling, "_table_pays", recording)
    pieces(neural_bigram, PROMPTS, num_tokens=20, tokens_per_piece=3)
    assert asked == [40]


def test_no_tokens_asked_are_no_pieces():
    assert pieces(mlp, num_tokens=0) == pieces(mlp, PROMPTS, num_tokens=0, tokens_per_piece=1) == []


def test_another_size_of_pieces_compiles_nothing():
    draw(mlp)
    compiled = sampling.draw_tokens._cache_size()
    for tokens_per_piece in (1, 2, 5, 12, 3000, None):
        pieces(mlp, tokens_per_piece=tokens_per_piece)
    assert sampling.draw_tokens._cache_size() == compiled


def test_a_piece_is_drawn_when_it_is_asked_for(monkeypatch):
    num_steps = []
    draw_tokens = sampling.draw_tokens

    def recording(*arguments, **options):
        num_steps.append(int(arguments[6]))
        return draw_tokens(*arguments, **options)

    monkeypatch.setattr(sampling, "_draw_tokens", recording)
    drawn = sampling.sample_stream(*mlp(), PROMPT, 9, key=jax.random.key(0), tokens_per_piece=4)
    assert num_steps == []
    next(drawn)
    assert num_steps == [4]
    assert [len(piece) for piece in drawn] == [4, 1]
    assert num_steps == [4, 4, 1]


def test_what_becomes_of_the_prompt_and_of_a_piece_changes_no_later_piece():
    prompt = PROMPTS.astype(np.int32)
    drawn = []
    given = sampling.sample_stream(*mlp(), prompt, 12, key=jax.random.key(0), tokens_per_piece=4)
    prompt[:] = 0
    for piece in given:
        drawn.append(piece.copy())
        piece[:] = 0  # the caller's own
    np.testing.assert_array_equal(np.concatenate(drawn, axis=1), draw(mlp, PROMPTS)[:, 5:])


# Errors.


@pytest.mark.parametrize("tokens_per_piece", [1, 2, 3, 4, None])
def test_the_piece_that_meets_a_token_never_seen_says_where(tokens_per_piece):
    to_the_end = np.eye(VOCAB, k=1)
    drawn = sampling.sample_stream(
        *counts_model(to_the_end, 0.0), [[0], [3]], 7, key=jax.random.key(0), tokens_per_piece=tokens_per_piece
    )
    with pytest.raises(ValueError, match=r"after token 7 \(drawing token 4, stream 1\)"):
        list(drawn)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tokens_per_piece": 0}, ValueError, "tokens_per_piece must be at least 1, got 0"),
        ({"tokens_per_piece": 2.0}, TypeError, "tokens_per_piece must be an integer, got 2.0"),
        ({"num_tokens": -1}, ValueError, "num_tokens must be at least 0, got -1"),
        ({"temperature": -0.5}, ValueError, "temperature must be finite and at least 0.*got -0.5"),
        ({"prompt_ids": [1]}, ValueError, "prompt has 1 token; MLPLanguageModel needs at least context_length=3"),
        ({"prompt_ids": [0, 1, 8]}, ValueError, r"prompt: 8 is outside 0\.\.7"),
        ({"prompt_ids": [0.0, 1.0, 2.0]}, TypeError, "prompt must be integers, got float"),
        ({"device": "abacus"}, ValueError, "unknown device 'abacus'"),
    ],
)
def test_pieces_check_their_arguments_when_called(options, error, message):
    arguments = {"prompt_ids": PROMPT, "num_tokens": 12, "key": jax.random.key(0), **options}
    with pytest.raises(error, match=message):
        sampling.sample_stream(*mlp(), **arguments)  # and nothing is drawn


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_token_never_seen_without_smoothing_is_an_error_that_names_it(temperature):
    to_the_end = np.eye(VOCAB, k=1)  # 0 -> 1 -> ... -> 7, and nothing after 7
    with pytest.raises(ValueError, match=r"after token 7 \(drawing token 4, stream 1\).*smoothing > 0"):
        draw(lambda: counts_model(to_the_end, 0.0), [[0, 0], [0, 3]], num_tokens=5, temperature=temperature)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_variables_that_are_not_a_number_are_an_error(temperature):
    logits = jnp.asarray(LOGITS, jnp.float32).at[2].set(jnp.nan)
    with pytest.raises(ValueError, match=r"NaN.*finite variables"):
        jaxlm.sample(OneTable(VOCAB), logits, [0], 3, key=jax.random.key(0), temperature=temperature)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": -1}, "num_tokens must be at least 0, got -1"),
        ({"temperature": -0.5}, "temperature must be finite and at least 0.*got -0.5"),
        ({"temperature": float("nan")}, "temperature must be finite and at least 0.*got nan"),
        ({"temperature": float("inf")}, "temperature must be finite and at least 0.*got inf"),
        ({"top_k": 0}, "top_k must be at least 1.*got 0"),
        ({"top_k": -3}, "top_k must be at least 1.*got -3"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\].*got 0.0"),
        ({"top_p": 1.01}, r"top_p must lie in \(0, 1\].*got 1.01"),
        ({"top_p": float("nan")}, r"top_p must lie in \(0, 1\].*got nan"),
        ({"prompt": [1]}, "prompt has 1 token; MLPLanguageModel needs at least context_length=3"),
        ({"prompt": np.zeros((4, 2), int)}, "prompt has 2 tokens; .* context_length=3"),
        ({"prompt": np.zeros(0, int)}, "prompt has 0 tokens; .* context_length=3"),
        ({"prompt": [0, 1, 8]}, r"prompt: 8 is outside 0\.\.7"),
        ({"prompt": [0, -1, 7]}, r"prompt: -1 is outside 0\.\.7"),
        ({"prompt": np.zeros((1, 1, 3), int)}, r"shape \[P\] or \[B, P\], got \[1, 1, 3\]"),
        ({"prompt": 3}, r"shape \[P\] or \[B, P\], got \[\]"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_an_argument_out_of_range_is_a_value_error_that_names_value_and_limit(options, message):
    with pytest.raises(ValueError, match=message):
        draw(mlp, **options)


def test_a_prompt_of_floats_is_a_type_error():
    with pytest.raises(TypeError, match="prompt must be integers, got float"):
        draw(mlp, [0.0, 1.0, 2.0])


@pytest.mark.parametrize("temperature", [1e-30, 1e-38, 1e-45, 1e-300])
def test_a_temperature_near_zero_is_greedy(temperature):
    """At logits of this size a plain division would overflow to inf, and then to NaN."""
    logits = jnp.array([5.0, 6.0, 1.0, 2.0, 6.5, 0.0])
    ids = jaxlm.sample(OneTable(6), logits, [0], 5, key=jax.random.key(0), temperature=temperature)
    assert ids.tolist() == [0, 4, 4, 4, 4, 4]


@dataclass(frozen=True)
class HalfUniform:
    """A reader's own model that computes in bfloat16, as many on accelerators do."""

    vocab_size: int
    context_length: int = 1

    def apply(self, variables, contexts):
        return jnp.broadcast_to(variables, (len(contexts), self.vocab_size))


def test_a_model_in_bfloat16_is_drawn_at_its_shares():
    """In bfloat16 a cumulative sum stands still at 256: most of 1000 equal tokens would never be drawn."""
    vocab_size = 1000
    logits = jnp.zeros(vocab_size, jnp.bfloat16)
    prompts = np.zeros((1000, 1), np.int32)
    ids = jaxlm.sample(HalfUniform(vocab_size), logits, prompts, 20, key=jax.random.key(0))
    counts = np.bincount(np.asarray(ids)[:, 1:].ravel(), minlength=vocab_size)
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("vocab_size", [128, 129, 200, 1000])
def test_a_large_vocabulary_is_drawn_at_its_shares(vocab_size):
    """Above 128 tokens a block is drawn, then a token of it; the last block may be short, and a block empty."""
    probabilities = np.random.default_rng(vocab_size).gamma(0.5, size=vocab_size)
    probabilities[64:128] = 0
    probabilities[[3, vocab_size - 1]] = [0, probabilities.max()]
    probabilities /= probabilities.sum()
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.log(probabilities), jnp.float32)
    prompts = np.zeros((2000, 1), np.int32)
    ids = jaxlm.sample(OneTable(vocab_size), logits, prompts, 50, key=jax.random.key(1))
    counts = np.bincount(np.asarray(ids)[:, 1:].ravel(), minlength=vocab_size)
    assert not counts[probabilities == 0].any()
    expected = probabilities * counts.sum()
    common = expected > 5
    observed = [*counts[common], counts[~common].sum()]
    wanted = [*expected[common], expected[~common].sum()]
    assert stats.chisquare(observed, wanted).pvalue > 1e-4
