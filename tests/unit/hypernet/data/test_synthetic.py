"""Synthetic tasks: right answers, nothing that an evaluation task asks for, nothing held out."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hypernet.cli import app
from hypernet.data.synthetic import derive
from hypernet.data.tasks import Instance, Task, load_tasks, write_lines

pytestmark = pytest.mark.slow

ANIMALS = ["cat", "horse", "lemur", "zebra", "giraffe", "elephant"]
OBJECTS = ["cup", "table", "mirror", "anchors", "keyboard", "telescope"]


def word_task(name: str, one: list[str], rest: list[str], n: int, count: int = 60) -> Task:
    rng = random.Random(name)
    instances = []
    for _ in range(count):
        answer = rng.choice(one)
        listed = [answer, *rng.sample(rest, n - 1)]
        rng.shuffle(listed)
        instances.append(Instance(input=", ".join(listed), output=[answer]))
    return Task(task=f"fv_{name}", name=name, descriptions=["Pick one."], instances=instances)


def pair_task(name: str, pairs: list[tuple[str, str]]) -> Task:
    return Task(
        task=f"x_{name}",
        name=name,
        descriptions=["Do it."],
        instances=[Instance(input=a, output=[b]) for a, b in pairs],
    )


TASKS = [
    word_task("animal_v_object_3", ANIMALS, OBJECTS, 3),
    word_task("object_v_animal_3", OBJECTS, ANIMALS, 3),
    pair_task("singular-plural", [(a, f"{a}s") for a in ANIMALS]),
    pair_task("sum", [(f"{a} {a + 3}", str(2 * a + 3)) for a in range(20)]),
]


@pytest.fixture(scope="module")
def derived() -> dict[str, Task]:
    return {task.name: task for task in derive(TASKS, [])}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("choose_second_of_4", lambda words: words[1]),
        ("choose_last_of_5", lambda words: words[-1]),
        ("choose_middle_of_3", lambda words: words[1]),
        ("alphabetically_last_5", max),
        ("longest_of_4", lambda words: max(words, key=len)),
        ("reverse_list_of_3", lambda words: ", ".join(words[::-1])),
    ],
)
def test_answers_follow_from_the_list(derived: dict[str, Task], name: str, answer) -> None:
    for instance in derived[name].instances:
        assert instance.output == [answer(instance.input.split(", "))]


def test_answers_about_letters_categories_inverses_and_numbers_are_right(derived: dict[str, Task]) -> None:
    for i in derived["last_two_letters"].instances:
        assert i.output == [i.input[-2:]]
    for i in derived["animal_v_object_4"].instances:
        listed = i.input.split(", ")
        assert i.output[0] in ANIMALS and sum(word in ANIMALS for word in listed) == 1 and len(listed) == 4
    assert {(i.input, i.output[0]) for i in derived["plural-singular"].instances} <= {
        (f"{a}s", a) for a in ANIMALS
    }
    for i in derived["larger_number"].instances:
        assert int(i.output[0]) == max(map(int, i.input.split()))


def test_a_composition_picks_and_then_transforms(derived: dict[str, Task]) -> None:
    for i in derived["uppercase_of_the_second_to_last"].instances:
        assert i.output == [i.input.split(", ")[-2].upper()]
    for i in derived["initial_of_the_longest"].instances:
        assert i.output == [max(i.input.split(", "), key=len)[0]]
    for i in derived["quote_of_the_animal"].instances:
        word = i.output[0].strip('"')
        assert i.output == [f'"{word}"'] and word in ANIMALS and word in i.input.split(", ")
    lengths = {len(i.input.split(", ")) for i in derived["shout_of_the_last"].instances}
    assert lengths == {3, 4, 5, 6}


def test_sentences_are_short_plain_ones_of_the_given_inputs() -> None:
    texts = ["The old cat sleeps.", "Is this one?", "No", "It costs 3 dollars now.", "We saw them there"]
    made = {task.name: task for task in derive([pair_task("any", [(t, "x") for t in texts])], [])}
    used = {i.input for i in made["copy_sentence"].instances}
    assert used and used <= {"The old cat sleeps", "We saw them there"}
    for i in made["drop_first_word"].instances:
        assert i.output == [i.input.split(" ", 1)[1]]
    for i in made["number_of_words"].instances:
        assert i.output == ["4"]


def test_the_longest_of_a_list_is_never_tied(derived: dict[str, Task]) -> None:
    for instance in derived["longest_of_3"].instances:
        lengths = [len(word) for word in instance.input.split(", ")]
        assert len(set(lengths)) == 3


def test_paraphrases_are_distinct_and_have_no_unfilled_slot(derived: dict[str, Task]) -> None:
    for task in derived.values():
        assert len(set(task.descriptions)) == len(task.descriptions) >= 10, task.name
        assert not any("{" in text or text != text.strip() or text[0].islower() for text in task.descriptions)


def unseen(answer: Callable[[list[str]], str], *lengths: int, name: str = "unheard_of") -> Task:
    """An evaluation task about word lists, under an unrelated name."""
    rng = random.Random(name)
    words = [*ANIMALS, *OBJECTS]
    lists = [rng.sample(words, rng.choice(lengths)) for _ in range(200)]
    return pair_task(name, [(", ".join(chosen), answer(chosen)) for chosen in lists])


@pytest.mark.parametrize(
    ("evaluation", "names"),
    [
        (unseen(lambda words: words[-1], 5), {"choose_last_of_5"}),
        (unseen(lambda words: f"{words[1].upper()}.", 4), {"choose_second_of_4"}),
        (unseen(max, 3, 4), {"alphabetically_last_3", "alphabetically_last_4"}),
        (unseen(lambda words: ", ".join(reversed(words)), 3), {"reverse_list_of_3"}),
        (pair_task("wie", [(w, w[-1]) for w in (*ANIMALS, *OBJECTS)]), {"last_letter"}),
        (pair_task("x", [(f"{a} {9 - a}", f"{9 - a}, {a}") for a in range(4)]), {"swap_numbers"}),
        (pair_task("y", [(f"{a}s", a) for a in ANIMALS]), {"plural-singular"}),
        (pair_task("z", [(a, f"{a}s") for a in ANIMALS]), {"singular-plural"}),
        (word_task("beast", ANIMALS, OBJECTS, 4), {"animal_v_object_4"}),
    ],
    ids=lambda value: ",".join(sorted(value)) if isinstance(value, set) else "",
)
def test_task_with_the_answers_of_an_evaluation_task_is_not_built_under_any_name(
    derived: dict[str, Task], evaluation: Task, names: set[str]
) -> None:
    built = {task.name for task in derive(TASKS, [evaluation])}
    assert names <= derived.keys()
    assert not names & built
    assert len(built) > len(derived) - 15  # related tasks are still built


def test_task_that_differs_from_an_evaluation_task_in_case_and_punctuation_is_not_built() -> None:
    cases = (
        ("last", lambda words: words[-1], 5),
        ("animal", None, 5),
        ("alphabetically_first", min, 3),
    )
    evaluation = [
        unseen(rule, n, name=f"unheard_of_{pick}") if rule else word_task("beast", ANIMALS, OBJECTS, n)
        for pick, rule, n in cases
    ]
    built = {task.name: task for task in derive(TASKS, evaluation)}
    for pick, _, length in cases:
        lengths = {len(i.input.split(", ")) for i in built[f"bracket_of_the_{pick}"].instances}
        assert lengths == {3, 4, 5, 6} - {length}
    for pick in ("first", "second_to_last", "alphabetically_last"):
        assert {len(i.input.split(", ")) for i in built[f"bracket_of_the_{pick}"].instances} == {3, 4, 5, 6}


def test_choice_that_evaluation_tasks_use_at_every_length_is_not_built() -> None:
    names = {task.name for task in derive(TASKS, [unseen(lambda words: words[-1], 3, 4, 5, 6)])}
    assert not any(name.endswith("_of_the_last") for name in names)
    assert not any(name.startswith("choose_last") for name in names)


def test_composition_of_an_evaluation_task_is_left_out_at_its_list_length() -> None:
    built = {t.name: t for t in derive(TASKS, [unseen(lambda words: words[-1][0], 5)])}
    assert {len(i.input.split(", ")) for i in built["initial_of_the_last"].instances} == {3, 4, 6}
    assert {len(i.input.split(", ")) for i in built["final_of_the_last"].instances} == {3, 4, 5, 6}


def test_no_pair_of_an_evaluation_task_is_shown(derived: dict[str, Task]) -> None:
    pairs = [i.pair for i in derived["last_two_letters"].instances][:2]
    evaluation = pair_task("few", [*pairs, *((word, "no") for word in OBJECTS)])
    built = {task.name: task for task in derive(TASKS, [evaluation])}
    assert not set(pairs) & {i.pair for i in built["last_two_letters"].instances}


def test_a_task_that_has_the_name_of_an_evaluation_task_is_not_built() -> None:
    names = {task.name for task in derive(TASKS, [pair_task("choose_last_of_4", [("a", "b")])])}
    assert "choose_last_of_4" not in names and "choose_last_of_5" in names


def test_no_task_separates_categories_that_share_words() -> None:
    mixed = [*ANIMALS[:3], *OBJECTS]
    tasks = [*TASKS, word_task("thing_v_animal_3", mixed, ANIMALS, 3)]
    names = {task.name for task in derive(tasks, [])}
    assert not {"thing_v_animal_4", "thing_v_object_3", "object_v_thing_3"} & names
    assert "animal_v_object_4" in names


def test_held_out_instances_are_not_used() -> None:
    task = pair_task("country-capital", [(f"land{i}", f"city{i}") for i in range(10)])
    inverse, reworded = derive([task], [])
    held_out = {i.input for i in task.split_instances()[1]}
    assert held_out and not held_out & {i.output[0] for i in inverse.instances}
    assert not held_out & {i.input for i in reworded.instances}


def test_a_given_task_gets_more_paraphrases_and_keeps_its_answers() -> None:
    task = pair_task("antonym", [("hot", "cold"), ("up", "down"), ("wet", "dry"), ("in", "out")])
    (reworded,) = derive([task], [])
    assert len(reworded.descriptions) > 10
    assert {i.pair for i in reworded.instances} == {i.pair for i in task.instances}
    assert not derive([task], [pair_task("opposite", [("hot", "cold"), ("up", "Down."), ("wet", "dry")])])


def test_the_same_seed_gives_the_same_tasks_and_another_seed_others() -> None:
    assert derive(TASKS, []) == derive(TASKS, [])
    assert derive(TASKS, []) != derive(TASKS, [], seed=1)


def write(path: Path, tasks: list[Task]) -> Path:
    write_lines(path, (task.model_dump_json() for task in tasks))
    return path


def test_derive_command_writes_a_task_file_without_the_evaluation_tasks(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl.gz", TASKS)
    first = write(tmp_path / "first.jsonl.gz", [word_task("beast", ANIMALS, OBJECTS, 5)])
    second = write(tmp_path / "second.jsonl.gz", [unseen(lambda words: words[-1], 4)])
    out = tmp_path / "new" / "derived.jsonl.gz"
    arguments = ["tasks", "derive", "--tasks", train, "--exclude", first, "--exclude", second, "--out", out]
    assert CliRunner().invoke(app, [str(word) for word in arguments]).exit_code == 0
    made = load_tasks(out)
    assert all(task.derived for task in made)
    names = {task.name for task in made}
    assert {"animal_v_object_3", "choose_last_of_3"} <= names
    assert not {"animal_v_object_5", "choose_last_of_4"} & names


def test_derive_command_writes_plain_text_for_a_jsonl_name(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl.gz", TASKS)
    out = tmp_path / "derived.jsonl"
    other = write(tmp_path / "unseen.jsonl", [pair_task("other", [("a question", "an answer")])])
    arguments = ["tasks", "derive", "--tasks", str(train), "--exclude", str(other), "--out", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert load_tasks(out) and out.read_text().startswith("{")


def test_derive_command_refuses_tasks_without_material(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl.gz", [pair_task("plain", [("a question", "an answer")])])
    arguments = [
        "tasks",
        "derive",
        "--tasks",
        str(train),
        "--exclude",
        str(train),
        "--out",
        str(tmp_path / "x"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "word lists" in result.output
