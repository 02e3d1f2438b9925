"""The course's ladder does the work of ours: the same counts, and networks that learn as far."""

import io

import jax
import pytest
from rich.console import Console

import jaxlm
from experiments.ladder import pytorch_ladder as course_ladder
from experiments.ladder.ladder import counts_bigrams, load_text, recorded_every

TEXT = "the cat sat on the mat. a rat sat on a hat: the cat sat on the rat!\n" * 40


def test_it_does_the_work_of_the_ladder(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    config = course_ladder.CourseConfig(
        text=path, tokenizer="char", steps=60, num_tokens=5, bigram_embedding_dim=16
    )
    console = Console(file=io.StringIO(), width=100)
    outcome = course_ladder.run_course(config, console)
    data = load_text(config.as_ladder())
    add_one = next(iter(counts_bigrams(data)))
    assert outcome["counts bigram, add 1"][0] == pytest.approx(add_one.evaluation.perplexity, rel=1e-5)
    for name in ("NeuralBigramLM", "MLPLanguageModel"):
        assert 1 < outcome[name][0] < 0.9 * data.tokenizer.vocab_size  # where a fresh one begins
    assert all(seconds > 0 for _, seconds in outcome.values())
    assert console.file.getvalue().count("perplexity") == 3


def test_the_work_is_done_on_the_cpu(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(course_ladder, "import_jobs", lambda: (None, None))
    monkeypatch.setattr(
        course_ladder, "train_and_sample", lambda *_: seen.append(jax.config.jax_default_device) or {}
    )
    course_ladder.run_course(course_ladder.CourseConfig(), Console(file=io.StringIO()))
    assert seen == [jax.devices("cpu")[0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"num_tokens": -1}, "--num-tokens must be at least 0, got -1"),
        ({"seed": -1}, "--seed must lie in"),
        ({"tokenizer": "char", "vocab_size": 300}, "--vocab-size 300 is for --tokenizer bpe"),
    ],
)
def test_a_wrong_option_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        course_ladder.run_course(course_ladder.CourseConfig(**options), Console(file=io.StringIO()))


@pytest.mark.slow
def test_as_many_validations_as_the_ladder():
    _, history = jaxlm.train_lm(
        jaxlm.NeuralBigramLM(3, 2),
        [0, 1, 2] * 30,
        key=jax.random.key(0),
        num_steps=500,
        log_every=recorded_every(500),
    )
    assert history["steps"] == sorted({*range(0, 500, recorded_every(500)), 499})
    assert len(history["steps"]) == 26
