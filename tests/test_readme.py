"""Every code block of every README runs, and every link leads to a file."""

import re
import runpy
import shlex
import sys
from functools import partial
from pathlib import Path

import pytest

from jaxlm.cli import main

ROOT = Path(__file__).parents[1]
READMES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("", "jaxlm", "experiments", "tests")
    for path in ROOT.joinpath(folder).glob("README.md" if not folder else "**/README.md")
)
# The options that make a documented training run short.
SHORT = ["--text", "mine.txt", "--tokenizer", "char", "--num-steps", "20", "--device", "cpu"]
PYTHON_SCRIPTS = {
    "scripts/ladder": "experiments/ladder/ladder.py",
    "scripts/fuzz": "scripts/stress/fuzz.py",
    "scripts/torture": "scripts/stress/kill_and_resume.py",
}


def find_blocks(language):
    for readme in READMES:
        text = (ROOT / readme).read_text("utf-8")
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield pytest.param(block, id=f"{readme}:{block.splitlines()[0][:30]}")


def find_commands():
    """Yield each command of the shell blocks, without its comment, with continued lines joined."""
    for block in find_blocks("bash"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] not in ("cd", "for"):
                yield words


def program_of(words):
    """Split a command into the program and its arguments."""
    while "=" in words[0]:
        words = words[1:]
    if words[0].endswith("python"):
        return tuple(words[:3]), words[3:]
    if words[0] in ("jaxlm", ".venv/bin/jaxlm"):
        length = 3 if words[1] == "course" else 2  # it has subcommands of its own
        return ("jaxlm", *words[1:length]), words[length:]
    return tuple(words[:1]), words[1:]


def help_of(program, monkeypatch, capsys):
    """Return what `--help` prints, or the text of a shell script.

    Python programs run in this process, which has imported their libraries.
    """
    if program[0].startswith("scripts/") and program[0] not in PYTHON_SCRIPTS:
        return (ROOT / program[0]).read_text("utf-8")
    words = program[1:] if program[0] == "jaxlm" else ()
    monkeypatch.setattr(sys, "argv", [program[0], *words, "--help"])
    if file := PYTHON_SCRIPTS.get(program[0]):
        monkeypatch.syspath_prepend((ROOT / file).parent)
        run = partial(runpy.run_path, str(ROOT / file))
    else:
        run = partial(runpy.run_module, "jaxlm" if program[0] == "jaxlm" else program[-1])
    with pytest.raises(SystemExit, match="0"):
        run(run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("block", list(find_blocks("python")))
def test_python_block_runs(block, tmp_path, monkeypatch, capsys, request):
    if "load_corpus" in block:
        request.getfixturevalue("tinyshakespeare")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.py").write_text(block.replace("num_steps=3000", "num_steps=30"), "utf-8")
    runpy.run_path("block.py")
    output = capsys.readouterr().out
    if "# 11.96" in block:
        assert float(output.split()[0]) == pytest.approx(11.96, abs=0.005)


# `test_extras.py` resolves the extras that the commands of pip install.
PROGRAMS = sorted({program for program, *_ in map(program_of, find_commands()) if "pip" not in program})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_documented_options_exist(program, monkeypatch, capsys):
    text = help_of(program, monkeypatch, capsys)
    for words in find_commands():
        if program_of(words)[0] == program:
            for option in (word.partition("=")[0] for word in program_of(words)[1] if word.startswith("--")):
                assert re.search(rf"{option}\b", text), f"{' '.join(words)}: no {option}"


@pytest.mark.slow
def test_jaxlm_commands_run_in_order(tmp_path, monkeypatch):
    """Run the different `jaxlm` commands of two READMEs, on a small text and with few steps."""
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("the cat sat on the mat; ROMEO: the dog ran after the cat\n" * 30, "utf-8")
    text = "".join((ROOT / readme).read_text("utf-8") for readme in ("README.md", "jaxlm/runs/README.md"))
    lines = re.findall(r"^(?:\.venv/bin/)?(jaxlm .*)", text, re.MULTILINE)
    for command in dict.fromkeys(shlex.join(shlex.split(line, comments=True)[1:]) for line in lines):
        words = shlex.split(command.replace("9000", "30"))
        is_new_sweep = words[0] == "sweep" and {"--grid", "--random"} & set(words)
        if is_new_sweep or (words[0] == "train" and not {"--resume", "--config"} & set(words)):
            words += SHORT[4:] if "--tokens" in words else SHORT
        assert main(words) == 0, command


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_to_files(readme):
    folder = (ROOT / readme).parent
    for link in re.findall(r"\]\((?!http|#)([^)#]+)[^)]*\)", (ROOT / readme).read_text("utf-8")):
        assert (folder / link).exists(), link


def test_top_readme_is_short():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 130
    assert len(text.encode()) <= 8192
