"""Ten plays of one or two speeches, in the Markdown of the wheel."""

# In the order of the classic file, which lacks the last play.
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
START, END = "# Title\n\n## ACT I\n\n### SCENE I. Rome.\n\n_Enter all_\n\n", "\n\n_Exeunt_\n"


def write_plays(folder, speeches):
    for name, speech in speeches.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(START + speech + END, "utf-8")
