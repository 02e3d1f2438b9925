"""shakespeare."""

import re
from pathlib import Path

_CLASSIC_PLAYS = (
    "roman/coriolanus",
    "histories/richard-iii",
    "histories/richard-ii",
    "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3",
    "romances/a-winter-s-tale",
    "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew",
    "romances/the-tempest",
)
_CLASSIC_END = "Whiles thou art waking."

_Rules = tuple[tuple[str, str], ...]

_REPAIRS: _Rules = (
    (r"^((?!OF )[A-Z ]+|\w+(?=\n\n\*\*of ))\n\n\*\*", r"\n**\1 "),  # a name broken over two paragraphs
    (r"^(#.*SCENE.*)\n\n(?=[A-Za-z])", r"\1 "),  # a heading broken over two paragraphs
    (r"^(\*\*Scene .+\n.+|EPILOGUE *|SONG\. *)$", "\n# heading\n"),  # a heading that lacks its mark
    (r"(?<!\*)\*(?!\*)", "_"),  # one play has *Exit* where the others have _Exit_
)
# What the classic file lost, and a corpus of that name has to lose with it.
_CLASSIC_LOSSES: _Rules = (
    (r"^(\*\*.+\*\*) *\n_*\\\[[^*#]+", r"\1\n\n"),  # the words of a speech that opens with a direction
    (r"^(\*\*.+) & .+\*\*", r"\1**"),  # the second of two who speak together
)
_TO_PLAIN: _Rules = (
    (r"_*\\?\[[^]_]*\]_ *", ""),  # a direction inside a speech
    (r"\\", ""),
    (r"&(amp;)? c\.", "&c."),
    ("—", "--"),
)


def build_corpora(plays: Path) -> dict[str, bytes]:
    classic = [_plain_text(plays / f"{play}.md", _CLASSIC_LOSSES) for play in _CLASSIC_PLAYS]
    start, end, _ = "\n\n".join(classic).partition(_CLASSIC_END)
    every = [_plain_text(path) for path in sorted(plays.glob("*/*.md"))]
    return {
        "tinyshakespeare": f"{start}{end}\n".encode(),
        "shakespeare": ("\n\n".join(every) + "\n").encode(),
    }


def _plain_text(path: Path, losses: _Rules = ()) -> str:
    play = path.read_text(encoding="utf-8")
    for pattern, replacement in (*_REPAIRS, *losses, *_TO_PLAIN):
        play = re.sub(pattern, replacement, play, flags=re.MULTILINE)
    return re.sub(r"^\*\*(.+)\*\*$", r"\1:", _join_speeches(play), flags=re.MULTILINE)


def _join_speeches(play: str) -> str:
    """Leaves out headings and directions; what follows a direction goes on with the speech before it."""
    speeches: list[list[str]] = [[]]
    for paragraph in re.split(r"\n{2,}", play):
        if paragraph.startswith(("#", "**")):
            speeches.append([])
        if not paragraph.startswith(("#", "_")):
            speeches[-1] += [line.rstrip() for line in paragraph.split("\n") if line.strip()]
    return "\n\n".join("\n".join(speech) for speech in speeches if speech)
