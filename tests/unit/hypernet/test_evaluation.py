from hypernet.evaluation.metrics import bootstrap, exact_match, rouge_l
from hypernet.evaluation.report import table
from hypernet.evaluation.zero_shot import CONDITIONS, Cell, derangement, random_strings


def test_exact_match_forgives_case_and_punctuation_only() -> None:
    assert exact_match("No", ["No."]) == 1
    assert exact_match(" the  Cat!", ["the cat", "dog"]) == 1
    assert exact_match("cat", ["the cat"]) == 0
    assert exact_match("!", ["?"]) == 0


def test_rouge_takes_the_best_reference() -> None:
    assert rouge_l("a red fox", ["something else", "a red fox"]) == 1
    assert 0 < rouge_l("a red fox", ["a blue fox"]) < 1


def test_bootstrap_is_seeded_and_covers_the_mean() -> None:
    values = [0.0, 1.0, 0.5, 0.25, 0.75]
    first = bootstrap(values, seed=3)
    assert first == bootstrap(values, seed=3)
    assert first.low < first.mean < first.high
    assert bootstrap([2.0] * 4).low == bootstrap([2.0] * 4).high == 2.0


def test_nobody_is_their_own_stranger() -> None:
    for n in (2, 5, 32):
        strangers = derangement(n, seed=1)
        assert sorted(strangers) == list(range(n))
        assert all(i != s for i, s in enumerate(strangers))


def test_random_strings_are_as_long_as_the_real_ones() -> None:
    made = random_strings(["hello there", "x"], "seed")
    assert [len(s) for s in made] == [11, 1]
    assert made == random_strings(["hello there", "x"], "seed")


def test_the_table_has_every_condition_and_paired_differences() -> None:
    cells = [
        Cell(f"t{i}", c, "exact_match" if i % 2 else "rougeL", float(i + j), 0.1 * j, 5, 3)
        for i in range(4)
        for j, c in enumerate(CONDITIONS)
    ]
    text = table(cells)
    assert text.count("| base model |") == 2
    assert "2.00 [2.00, 2.00]" in text  # matched - base is 2 on every task
