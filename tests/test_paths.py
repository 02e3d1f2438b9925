"""Every public function that takes a path takes strings and any `os.PathLike`."""

import inspect

import pytest

import jaxlm

pytest.importorskip("flatbuffers", reason="flatbuffers is not installed; it comes with jaxlm[stablehlo]")


class PathLike:
    """An `os.PathLike` other than `pathlib.Path`."""

    def __init__(self, path):
        self._path = str(path)

    def __fspath__(self):
        return self._path


@pytest.mark.slow
@pytest.mark.parametrize("kind", [str, PathLike])
def test_public_functions_take_paths_of_this_kind(tmp_path, kind):
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 50, "utf-8")
    tokenizer = jaxlm.ByteTokenizer()
    ids = tokenizer.encode((tmp_path / "text.txt").read_text("utf-8"))
    counts = jaxlm.count_ngrams(ids, 2, vocab_size=256)
    model, variables = jaxlm.CountsNgramLM.from_counts(counts)

    def at(name):
        return kind(tmp_path / name)

    tokenizer.save(at("tokenizer.json"))
    counts.save(at("counts"))
    jaxlm.NgramCounts.load(at("counts"))
    config = jaxlm.TrainConfig(model="counts", tokenizer="byte", text=at("text.txt"))
    calls = {
        "read_text": lambda: jaxlm.read_text(at("text.txt")),
        "load_tokenizer": lambda: jaxlm.load_tokenizer(at("tokenizer.json")),
        "encode_files": lambda: jaxlm.encode_files(
            at("text.txt"), PathLike(tmp_path / "tokenizer.json"), at("tokens")
        ),
        "open_tokens": lambda: jaxlm.open_tokens(at("tokens")),
        "save_model": lambda: jaxlm.save_model(at("model"), model, variables, tokenizer),
        "load_model": lambda: jaxlm.load_model(at("model")),
        "write_arpa": lambda: jaxlm.write_arpa(at("lm.arpa"), model, variables, tokenizer),
        "read_arpa": lambda: jaxlm.read_arpa(at("lm.arpa")),
        "write_hugging_face": lambda: jaxlm.write_hugging_face(at("hub"), model, variables, tokenizer),
        "write_stablehlo": lambda: jaxlm.write_stablehlo(at("lm.stablehlo"), jaxlm.UniformLM(3), {}),
        "start_run": lambda: jaxlm.start_run(config, at("run")),
        "resume_run": lambda: jaxlm.resume_run(at("run")),
        "open_run": lambda: jaxlm.open_run(at("run")),
        "list_runs": lambda: jaxlm.list_runs(at("")),
        "run_sweep": lambda: jaxlm.run_sweep(at("sweep"), [config]),
        "list_sweep_runs": lambda: jaxlm.list_sweep_runs(at("sweep")),
        "summarize_sweep": lambda: jaxlm.summarize_sweep(at("sweep")),
    }
    functions = filter(inspect.isfunction, (getattr(jaxlm, name) for name in jaxlm.__all__))
    assert {each.__name__ for each in functions if "PathLike" in str(inspect.signature(each))} == calls.keys()
    for call in calls.values():
        call()
    assert {path.name for path in tmp_path.iterdir()} >= {"tokens", "model", "lm.arpa", "hub", "run", "sweep"}
