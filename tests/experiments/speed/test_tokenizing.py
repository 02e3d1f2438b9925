"""Both variants give the same ids."""

from experiments.speed.tokenizing import make_benchmark


def test_variants_give_the_same_ids():
    benchmark = make_benchmark("the cat sat on the mat, naïvely\n" * 50)
    ours, theirs = (variant.call() for variant in benchmark.variants.values())
    assert ours.tolist() == theirs.ids
    assert {variant.units for variant in benchmark.variants.values()} == {50 * 33}
