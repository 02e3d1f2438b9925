"""Turn the Markdown edition of the plays into plain text: speaker, colon, lines, blank line."""

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

_Rules = tuple[tuple[str, str], ...]  # patterns and their replacements, applied in order

# Fix irregularities of the edition.
_REPAIRS: _Rules = (
    (r"^((?!OF )[A-Z ]+|\w+(?=\n\n\*\*of ))\n\n\*\*", r"\n**\1 "),  # speaker's name split into two paragraphs
    (r"^(#.*SCENE.*)\n\n(?=[A-Za-z])", r"\1 "),  # heading split into two paragraphs
    (r"^(\*\*Scene .+\n.+|EPILOGUE *|SONG\. *)$", "\n# heading\n"),  # heading without its #
    (r"(?<!\*)\*(?!\*)", "_"),  # one play has *Exit*, the others have _Exit_
)
# Remove text that is missing in the classic file too.
_CLASSIC_OMISSIONS: _Rules = (
    (r"^(\*\*.+\*\*) *\n_*\\\[[^*#]+", r"\1\n\n"),  # the lines of a speech that starts with a stage direction
    (r"^(\*\*.+) & .+\*\*", r"\1**"),  # the second of two speakers
)
_TO_PLAIN_TEXT: _Rules = (
    (r"_*\\?\[[^]_]*\]_ *", ""),  # stage direction inside a speech
    (r"\\", ""),  # Markdown escapes
    (r"&(amp;)? c\.", "&c."),
    ("—", "--"),
)


def build_corpora(plays: Path) -> dict[str, bytes]:
    """Return the UTF-8 text of both corpora, by name, built from the folder with the plays."""
    classic = [_play_to_text(plays / f"{play}.md", _CLASSIC_OMISSIONS) for play in _CLASSIC_PLAYS]
    start, end, _ = "\n\n".join(classic).partition(_CLASSIC_END)
    every = [_play_to_text(path) for path in sorted(plays.glob("*/*.md"))]
    return {
        "tinyshakespeare": f"{start}{end}\n".encode(),
        "shakespeare": ("\n\n".join(every) + "\n").encode(),
    }


def _play_to_text(path: Path, omissions: _Rules = ()) -> str:
    play = path.read_text(encoding="utf-8")
    for pattern, replacement in (*_REPAIRS, *omissions, *_TO_PLAIN_TEXT):
        play = re.sub(pattern, replacement, play, flags=re.MULTILINE)
    return re.sub(r"^\*\*(.+)\*\*$", r"\1:", _join_speeches(play), flags=re.MULTILINE)


def _join_speeches(play: str) -> str:
    """Drop headings and stage directions. Text after a stage direction continues the speech before it."""
    speeches: list[list[str]] = [[]]
    for paragraph in re.split(r"\n{2,}", play):
        if paragraph.startswith(("#", "**")):
            speeches.append([])
        if not paragraph.startswith(("#", "_")):
            speeches[-1] += [line.rstrip() for line in paragraph.split("\n") if line.strip()]
    return "\n\n".join("\n".join(speech) for speech in speeches if speech)
