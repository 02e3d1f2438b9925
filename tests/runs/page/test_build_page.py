"""The page is one file that needs nothing else, and that no text can break."""

import base64
import hashlib
import json
import math
import re
from html import unescape
from pathlib import Path

import jax
import numpy as np
import pytest
from page_models import TOKENIZER, make_page_models, random_weights

import jaxlm
from jaxlm.runs.page.build import build_page
from jaxlm.runs.page.describe import PageModel, compress_rows, describe_model, principal_components
from jaxlm.runs.page.sources import load_page_models

EVIL = "</title></script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_page_models(tmp_path_factory.mktemp("models"))


def decode(array):
    return np.frombuffer(base64.b64decode(array["data"]), array["dtype"])


def contents(page, tag):
    return re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", page, flags=re.DOTALL)


def test_build_page_allows_only_its_own_script_and_style(models):
    page = build_page(models, TOKENIZER, title="t")
    data, script = contents(page, "script")
    (style,) = contents(page, "style")
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (script, style)]
    policy = unescape(re.search('Content-Security-Policy" content="([^"]*)"', page)[1])
    assert " ".join(policy.split()) == (
        f"default-src 'none'; img-src data:; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert json.loads(data)["tokenizer"]["tokens"] == list(TOKENIZER.characters)


def test_build_page_escapes_every_text(models):
    evil = [each._replace(title=EVIL, source=EVIL, perplexity=math.inf) for each in models]
    page = build_page(evil, TOKENIZER, title=EVIL, prompt=EVIL)
    data, _ = contents(page, "script")  # two scripts, as without EVIL
    assert json.loads(data)["prompt"] == EVIL
    assert json.loads(data)["models"][0]["perplexity"] is None  # JSON has no infinity
    assert contents(page, "title") == ["&lt;/title&gt;&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;"]
    assert "<" not in data


def test_build_page_in_half_precision_has_half_the_weights(models):
    sizes = []
    for float16 in (False, True):
        page = build_page(models, TOKENIZER, title="t", float16=float16)
        kernel = json.loads(contents(page, "script")[0])["models"][2]["arrays"]["kernel"]
        np.testing.assert_allclose(
            decode(kernel), np.ravel(models[2].variables["params"]["projection"]["kernel"]), atol=1e-2
        )
        sizes.append(len(decode(kernel).tobytes()))
        assert ("half precision" in page) == float16
    assert sizes[0] == 2 * sizes[1]


def test_build_page_refuses_weights_beyond_half_precision(models):
    bigram = models[1]._replace(variables=jax.tree.map(lambda leaf: leaf * 1e6, models[1].variables))
    with pytest.raises(
        ValueError, match=r"bigram has weights up to .*e\+06, but float16 ends at 65504; pass float16=False"
    ):
        build_page([bigram], TOKENIZER, title="t", float16=True)


def test_build_page_refuses_a_long_prompt(models):
    with pytest.raises(ValueError, match="prompt must have at most 4000 characters, got 4001; shorten it"):
        build_page(models, TOKENIZER, title="t", prompt="t" * 4001)


def test_compress_rows_holds_every_count():
    table = np.random.default_rng(0).poisson(0.5, size=(7, 7)) * 40_000
    rows, columns, counts = compress_rows(table).values()
    restored = np.zeros_like(table)
    for row in range(7):
        restored[row, columns[rows[row] : rows[row + 1]]] = counts[rows[row] : rows[row + 1]]
    assert (restored == table).all()
    assert (rows.dtype, counts.dtype) == (np.uint8, np.uint32)


def test_principal_components_equal_those_of_the_covariance():
    vectors = np.random.default_rng(0).normal(size=(50, 5)) * [5, 1, 3, 1, 1]
    points, shares = principal_components(vectors)
    variances = np.linalg.eigvalsh(np.cov(vectors.T, bias=True))[::-1]
    np.testing.assert_allclose(points.var(axis=0), variances[:2], rtol=1e-5)
    np.testing.assert_allclose(shares, variances[:2] / variances.sum())
    points, shares = principal_components(np.ones((3, 1)))
    assert (points.shape, shares) == ((3, 2), [0, 0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (jaxlm.UniformLM(9), "here is a UniformLM; a page shows counts bigrams"),
        (jaxlm.NeuralBigramLM(4, 2), "here has 4 ids, but its tokenizer 9"),
    ],
)
def test_describe_model_refuses_a_model(model, message):
    with pytest.raises(ValueError, match=message):
        describe_model(PageModel("title", "here", model, {}), num_tokens=9)


def test_load_page_models_orders_the_rungs_of_a_run(models, tmp_path):
    (tmp_path / "models").mkdir()
    for folder, page_model in zip("cba", models, strict=True):
        jaxlm.save_model(tmp_path / "models" / folder, page_model.model, page_model.variables, TOKENIZER)
    rows = [{"name": "b", "perplexity": 7.0}, {"name": "z", "perplexity": 1.0}]
    (tmp_path / "results.json").write_text(json.dumps({"models": rows, "prompt": "to be"}))
    loaded, tokenizer, prompt = load_page_models([tmp_path], jaxlm.load_model)
    assert [each.title for each in loaded] == ["counts bigram, add 0.1", "neural bigram", "MLP"]
    assert [each.perplexity for each in loaded] == [None, 7.0, None]
    assert (tokenizer, prompt) == (TOKENIZER, "to be")


@pytest.mark.parametrize("results", ["[1]", "{}", '{"prompt": "", "models": [{}]}'])
def test_load_page_models_refuses_damaged_results(tmp_path, results):
    (tmp_path / "results.json").write_text(results)
    with pytest.raises(
        ValueError, match=r"results\.json does not hold the results of a run; restore or delete it"
    ):
        load_page_models([tmp_path], jaxlm.load_model)


def test_load_page_models_names_equal_titles_by_path(models):
    paths = [Path(models[2].source), Path(models[2].source, "model.safetensors")]
    loaded, *_ = load_page_models(paths, jaxlm.load_model)
    assert [each.title for each in loaded] == [f"MLP, {path}" for path in paths]


def test_load_page_models_refuses_another_tokenizer_or_model(models, tmp_path):
    jaxlm.save_model(
        tmp_path / "bytes",
        bigram := jaxlm.NeuralBigramLM(256, 1),
        random_weights(bigram, 0),
        jaxlm.ByteTokenizer(),
    )
    with pytest.raises(ValueError, match=r"bytes has another tokenizer than .*mlp; make one page per tokenizer"):
        load_page_models([Path(models[2].source), tmp_path / "bytes"], jaxlm.load_model)
    jaxlm.save_model(tmp_path / "uniform", jaxlm.UniformLM(256), {}, jaxlm.ByteTokenizer())
    with pytest.raises(ValueError, match="uniform is a UniformLM; a page shows counts bigrams, neural"):
        load_page_models([tmp_path / "uniform"], jaxlm.load_model)
