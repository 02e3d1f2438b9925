"""The page's core computes what Python computes: random numbers, ids, log-probabilities and draws."""

import itertools
import random

import jax
import numpy as np
import pytest
from page_core import run_core

import jaxlm
from jaxlm.runs.own import limit_tokens
from jaxlm.runs.page.describe import PageModel, describe_model, describe_tokenizer
from jaxlm.runs.setup import SAMPLE_FOLD
from jaxlm.sampling.distributions import check_options, compute_distributions, sample_tokens

pytestmark = pytest.mark.slow  # Node is a subprocess

TEXT = (
    "The cat's on the mat, isn't it? 12 dogs;\n\n\tNaïve café — \u2019tis “quoted”. Привет, שלום!  日本語 🙂 aaa\n"
    * 40
)
TOKENIZERS = {
    "char": jaxlm.CharTokenizer.train(TEXT),
    "byte": jaxlm.ByteTokenizer(),
    "bpe": jaxlm.BPETokenizer.train(TEXT, vocab_size=400),
}
# White space that JavaScript, Python and Unicode define differently, contractions, marks, digits, parts of emoji.
WHITE_SPACE = [" ", "  ", "\n", "\r\n", "\t", *"\x85\ufeff\x1c\x1f\xa0\u2028\u3000\u180e\u200b"]
WORDS = ["'s", "'ll", "'T", "\u2019s", "e\u0301", "the", "is", "aaa", "12", "שלום", "日本語", "</script>"]
PIECES = [*WHITE_SPACE, *WORDS, *"é²٣Ⅷ़ß\u017f🙂\u200d👩\0—\\"]
OPTIONS = [
    (1.0, None, None),
    (0.7, None, None),
    (1.0, 5, None),
    (1.3, 200, None),
    (1.0, None, 0.9),
    (0.8, 40, 0.5),
    (1e38, 5, None),  # differences of logits become subnormal
]


def random_models(vocab_size):
    """Return one model of each kind, whose distributions differ as much as those of trained models."""
    rng = np.random.default_rng(0)
    models = [
        jaxlm.CountsBigramLM(vocab_size, smoothing=0.01),
        jaxlm.NeuralBigramLM(vocab_size, embedding_dim=16),
        jaxlm.MLPLanguageModel(vocab_size, context_length=3, embedding_dim=8, hidden_dim=24),
        jaxlm.MLPLanguageModel(vocab_size, 2, 8, 24, direct_connections=True),
    ]
    counts = rng.poisson(rng.pareto(1.0, size=(vocab_size, vocab_size)) / 4).astype(np.int32)
    described = [PageModel("counts", "counts", models[0], {"counts": {"table": counts}})]
    for index, model in enumerate(models[1:]):
        variables = jaxlm.init(model, jax.random.key(index))
        variables = jax.tree.map(lambda leaf: rng.normal(scale=0.5, size=leaf.shape).astype(np.float32), variables)
        described.append(PageModel(str(index), str(index), model, variables))
    return described


def to_json(model, num_tokens=None):
    return describe_model(model, num_tokens=num_tokens or model.model.vocab_size)


def test_uniforms_equal_those_of_jax_to_the_bit():
    seeds, steps = [0, 3, 12345, 2**31, 2**32 - 1], [*range(300), 2**31 - 1]
    expected = []
    for seed in seeds:
        key = jax.random.fold_in(jax.random.key(seed), SAMPLE_FOLD)
        draw = jax.vmap(lambda t, key=key: jax.random.uniform(jax.random.fold_in(key, t), (1,)))
        expected.append(draw(np.array(steps))[:, 0].tolist())
    assert (
        run_core("seeds.map((seed) => steps.map((t) => uniformOf(seed, t)))", seeds=seeds, steps=steps) == expected
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_encode_equals_python_on_generated_strings(name):
    generator, tokenizer = random.Random(0), TOKENIZERS[name]
    pieces = sorted(set(TEXT)) if name == "char" else PIECES
    texts = ["".join(generator.choices(pieces, k=generator.randrange(20))) for _ in range(2000)]
    arguments = {"description": describe_tokenizer(tokenizer), "texts": texts}
    ids = run_core("texts.map(makeTokenizer(description).encode)", **arguments)
    assert ids == [tokenizer.encode(text).tolist() for text in texts]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_decode_equals_python_on_any_ids(name):
    generator, tokenizer = random.Random(0), TOKENIZERS[name]
    streams = [generator.choices(range(tokenizer.vocab_size), k=generator.randrange(12)) for _ in range(2000)]
    streams.append(tokenizer.encode("é" if name == "char" else "\ufeffa\ufeff").tolist())
    arguments = {"description": describe_tokenizer(tokenizer), "streams": streams}
    code = "streams.map((ids) => decodeIds(makeTokenizer(description), ids))"
    assert run_core(code, **arguments) == [tokenizer.decode(ids) for ids in streams]


def test_encode_of_an_unknown_character_is_refused():
    code = "(() => { try { makeTokenizer(description).encode('a€') } catch (error) { return error.message } })()"
    message = run_core(code, description=describe_tokenizer(TOKENIZERS["char"]))
    assert message == 'the models do not know the character "€"; remove it'


def test_half_precision_decodes_every_number():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    expected = [None if not np.isfinite(half) else float(half) for half in halves]
    assert run_core("Array.from({ length: 65536 }, (_, bits) => halfToFloat(bits))") == expected


@pytest.mark.parametrize(("index", "tolerance"), [(0, 1e-5), (1, 1e-4), (2, 1e-4), (3, 1e-4)])
def test_log_probs_equal_those_of_jax(index, tolerance):
    page_model, rng = random_models(100)[index], np.random.default_rng(1)
    model, variables = page_model.model, page_model.variables
    contexts = rng.integers(100, size=(50, model.context_length)).tolist()
    code = """contexts.map((context) => {
      const logits = makeModel(description, 100).logits(context);
      return Array.from(logits, (_, token) => logProb(logits, token));
    })"""
    log_probs = run_core(code, description=to_json(page_model), contexts=contexts)
    expected = jax.nn.log_softmax(jaxlm.compute_logits(model, variables, np.array(contexts)))
    np.testing.assert_allclose(log_probs, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("options", OPTIONS)
def test_draws_from_the_same_logits_equal_those_of_jax(options):
    """Of 14,000 draws in all, at most one differs, by the rounding of `exp` and of sums."""
    rng, num_rows, vocab_size = np.random.default_rng(2), 2000, 300
    logits = rng.normal(scale=3, size=(num_rows, vocab_size)).astype(np.float32).round(1)  # with ties
    uniforms = (rng.integers(2**23, size=num_rows) / 2**23).astype(np.float32)
    names = dict(zip(("temperature", "topK", "topP"), options, strict=True))
    distributions = compute_distributions(logits, check_options(vocab_size, *options))
    expected = np.asarray(sample_tokens(distributions, uniforms))
    code = """rows.map((row, index) =>
      drawToken(computeDistribution(Float32Array.from(row), options), uniforms[index]))"""
    tokens = run_core(code, rows=logits.tolist(), options=names, uniforms=uniforms.tolist())
    assert (tokens != expected).sum() <= 1


def test_draw_skips_impossible_tokens_and_reports_none():
    rows, options = [[-1e30, 0, -1e30], [0, -1e30, -1e30]], {"temperature": 1, "topK": None, "topP": None}
    code = """rows.map((row) => [0, 0.5, 1].map((uniform) =>
      drawToken(computeDistribution(Float32Array.from(row), options), uniform)))"""
    assert run_core(code, rows=rows, options=options) == [[1, 1, 1], [0, 0, 0]]
    code = code.replace("Float32Array.from(row)", "new Float32Array(3).fill(-Infinity)")
    assert run_core(code, rows=rows[:1], options=options) == [[-1, -1, -1]]


@pytest.mark.parametrize("options", [(0.0, None, None), (1.0, 1, None), (1.0, 2, None)])
def test_ties_go_to_the_lower_id(options):
    names = dict(zip(("temperature", "topK", "topP"), options, strict=True))
    code = "Array.from(computeDistribution(Float32Array.of(1, 3, 2, 3, 3), options).order)"
    assert run_core(code, options=names) == [1, 3][: 1 if options[1] != 2 else 2]


@pytest.mark.parametrize("name", ["char", "bpe"])
def test_samples_equal_those_of_jaxlm_sample(name):
    """The prompt is shorter than the context, and the vocabulary of the models is padded."""
    tokenizer, seed, num_tokens = TOKENIZERS[name], 5, 200
    known = tokenizer.vocab_size
    key = jax.random.fold_in(jax.random.key(seed), SAMPLE_FOLD)
    code = """(() => {
      const model = makeModel(description, numTokens), ids = [1];
      for (let t = 0; t < 200; t++) {
        const context = contextAt(ids, ids.length, model.contextLength, tokenizer.paddingId);
        ids.push(drawToken(computeDistribution(model.logits(context), options), uniformOf(seed, t)));
      }
      return ids;
    })()"""
    described = describe_tokenizer(tokenizer)
    for page_model, (temperature, top_k, top_p) in itertools.product(random_models(known + 3), OPTIONS[::5]):
        model = limit_tokens(page_model.model, known)
        prompt = [*[described["paddingId"]] * (model.context_length - 1), 1]
        limits = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        ids = jaxlm.sample(model, page_model.variables, prompt, num_tokens, key=key, device="cpu", **limits)
        expected = np.asarray(ids)[model.context_length - 1 :].tolist()
        options = {"temperature": temperature, "topK": top_k, "topP": top_p}
        arguments = {"tokenizer": described, "numTokens": known, "options": options, "seed": seed}
        assert run_core(code, description=to_json(page_model, known), **arguments) == expected
