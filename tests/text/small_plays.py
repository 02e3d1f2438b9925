"""Ten plays of one speech each, in the Markdown of the wheel."""

# The order of the first speeches in the classic file, and one play that it does not have.
PLAYS = {
    "roman/coriolanus": "**First Citizen**  \nBefore we proceed any further, hear me speak.",
    "histories/richard-iii": "**GLOUCESTER**  \nNow is the winter of our discontent",
    "histories/richard-ii": "**KING RICHARD II**  \nOld John of Gaunt, time-honour'd Lancaster,",
    "tragedies/romeo-and-juliet": "**SAMPSON**  \nGregory, o' my word, we'll not carry coals.",
    "histories/henry-vi-part-3": "**WARWICK & YORK**  \nI wonder how the king escaped our hands.",
    "romances/a-winter-s-tale": "**ARCHIDAMUS**  \n_\\[Aside]_  \nIf you shall chance, Camillo,",
    "problems/measure-for-measure": "**DUKE VINCENTIO**  \nEscalus.",
    "problems/the-taming-of-the-shrew": "**SLY**  \nI'll pheeze you, in faith.",
    "romances/the-tempest": "**ANTONIO**  \nWhiles thou art waking.\n\n**SEBASTIAN**  \nThou dost snore.",
    "comedies/as-you-like-it": "**ORLANDO**  \nAs I remember, Adam.",
}


def write_plays(folder, plays):
    for name, markdown in plays.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(markdown, "utf-8")


def write_small_plays(folder):
    start, end = "# Title\n\n## ACT I\n\n### SCENE I. Rome.\n\n_Enter all_\n\n", "\n\n_Exeunt_\n"
    write_plays(folder, {name: start + speech + end for name, speech in PLAYS.items()})
