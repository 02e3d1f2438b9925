"""Tables align their columns."""

from experiments.shared.report import format_table


def test_format_table_aligns_text_left_and_figures_right():
    text = format_table(["a", "figure"], [["[red]", "1"], ["b", "-10"], ["c"]])
    assert [line.split() for line in text.splitlines()[-3:]] == [["[red]", "1"], ["b", "-10"], ["c"]]
    assert len({len(line) for line in text.splitlines()[:-1]}) == 1
    wide = format_table(["a"], [["word " * 60]])
    assert "word " * 59 in wide
