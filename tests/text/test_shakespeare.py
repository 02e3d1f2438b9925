"""The Markdown of the plays becomes speeches, in the order of the classic file."""

import difflib
import re

import pytest
from small_plays import PLAYS, write_plays

import jaxlm
from jaxlm.text.shakespeare import build_corpora


def speakers(text):
    return re.findall(r"^(.+):$", text, re.MULTILINE)


def test_build_corpora_orders_and_cuts_the_plays(tmp_path):
    write_plays(tmp_path, PLAYS)
    tiny, whole = (content.decode() for content in build_corpora(tmp_path).values())
    names = ["First Citizen", "GLOUCESTER", "KING RICHARD II", "SAMPSON", "WARWICK", "ARCHIDAMUS"]
    assert speakers(tiny) == [*names, "DUKE VINCENTIO", "SLY", "ANTONIO"]
    assert tiny.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n\nGLOUCESTER:\nNow is")
    assert "ARCHIDAMUS:\n\nDUKE VINCENTIO:\nEscalus.\n\n" in tiny  # the classic file lacks his words
    assert tiny.endswith("ANTONIO:\nWhiles thou art waking.\n")
    names = ["ORLANDO", "WARWICK & YORK", "KING RICHARD II", "GLOUCESTER", "DUKE VINCENTIO", "SLY"]
    assert speakers(whole) == [*names, "First Citizen", "ARCHIDAMUS", "ANTONIO", "SEBASTIAN", "SAMPSON"]
    assert "ARCHIDAMUS:\nIf you shall chance, Camillo,\n\nANTONIO:\nWhiles thou art waking.\n\nSEBAS" in whole
    assert whole.endswith("SAMPSON:\nGregory, o' my word, we'll not carry coals.\n")


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("**All**  \nSpeak,  \nspeak.\n\n**Clown**  \nNo.", "All:\nSpeak,\nspeak.\n\nClown:\nNo."),
        ("# Play\n\n## ACT I\n\n### SCENE I. Rome.\n\n**All**  \nSpeak.", "All:\nSpeak."),
        ("### SCENE I. A field in\n\nYorkshire.\n\n**All**  \nSpeak.", "All:\nSpeak."),
        ("### Prologue\n\nI come no more  \nto make you laugh.", "I come no more\nto make you laugh."),
        ("**All**  \nSpeak.\n\n_Enter clubs and\nweapons_\n\nAgain.", "All:\nSpeak.\nAgain."),
        ("**All**  \nSpeak.\n\n*Exit.*\n\nAgain—again.", "All:\nSpeak.\nAgain--again."),
        ("**All**  \n_\\[Aside]_  \nSpeak.\n\n_\\[To\nSLY]_  \nAgain.", "All:\nSpeak.\nAgain."),
        ("**All**  \n__\\[Awaking]_  \nSpeak.\n\n**All**  \n[Aside]_  \nSo.", "All:\nSpeak.\n\nAll:\nSo."),
        ("**All**  \nTwice being _\\[chosen]_  \ncensor,", "All:\nTwice being\ncensor,"),
        ("**All**  \nBark!\n\n_Burthen _\\[within_\n\nBow-wow.", "All:\nBark!\nBow-wow."),
        ("**All**  \n'Sir,'\\--said I; hey, & c.  \nho, &amp; c.", "All:\n'Sir,'--said I; hey, &c.\nho, &c."),
        ("**All**  \nPeace.  \nBISHOP\n\n**OF ELY**  \nNo.", "All:\nPeace.\n\nBISHOP OF ELY:\nNo."),
        ("_Enter_\n\nGhosts\n\n**of Princes**  \nDream on.", "Ghosts of Princes:\nDream on."),
        ("**All**  \nSpeak.\n\nSONG.  \nFie, fie.\n\nEPILOGUE\n\nNow.", "All:\nSpeak.\n\nFie, fie.\n\nNow."),
        ("**All**  \nSpeak.\n\n**Scene III**  \nRome.\n\n**All**  \nSo.", "All:\nSpeak.\n\nAll:\nSo."),
    ],
)
def test_build_corpora_turns_markdown_into_speeches(tmp_path, markdown, expected):
    write_plays(tmp_path, dict.fromkeys(PLAYS, "") | {"comedies/as-you-like-it": markdown})
    assert build_corpora(tmp_path)["shakespeare"].decode().rstrip("\n") == expected


def test_tinyshakespeare_resembles_the_classic_file(classic_shakespeare, tinyshakespeare):
    lines, classic_lines = (
        [line for line in text.splitlines() if line] for text in (tinyshakespeare, classic_shakespeare)
    )
    blocks = difflib.SequenceMatcher(None, lines, classic_lines, autojunk=False).get_matching_blocks()
    assert sum(block.size for block in blocks) / len(classic_lines) > 0.997
    assert len(tinyshakespeare) == pytest.approx(len(classic_shakespeare), rel=0.001)
    assert set(tinyshakespeare) == set(classic_shakespeare) - {"3"}
    assert lines[-1] == classic_lines[-1]


@pytest.mark.slow
def test_corpora_contain_no_markdown(tinyshakespeare, fetching):
    with fetching():
        whole = jaxlm.load_corpus("shakespeare").text
    for text in (tinyshakespeare, whole):
        assert "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\n" in text
        assert text.isascii()
        assert not set(text) & set("*_#\\[]<>\t\r")
        assert not re.search(r"\n{3,}|[ ]\n|&\w+;", text)
