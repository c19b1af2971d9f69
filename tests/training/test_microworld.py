"""The corpora: repeatable, readable, and split so that no question was ever trained on."""

import random
import re
from itertools import pairwise

import pytest

from workbench.training.microworld import DOCUMENTS, FACTS, QUESTIONS, brackets, dialects, numbers, passkey
from workbench.training.microworld.words import DIALECT_NOUNS, DIALECT_PARTICLES, DIALECT_VERBS


def texts(domain: str, seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return [DOCUMENTS[domain](rng).text for _ in range(count)]


@pytest.mark.parametrize("domain", DOCUMENTS)
def test_a_seed_determines_the_documents(domain, seed):
    assert texts(domain, seed, 20) == texts(domain, seed, 20)
    assert texts(domain, seed, 20) != texts(domain, seed + 1, 20)


@pytest.mark.parametrize("task", QUESTIONS)
def test_a_seed_determines_the_questions_and_right_is_never_wrong(task, seed):
    first, again = random.Random(seed), random.Random(seed)
    for _ in range(200):
        question = QUESTIONS[task](first)
        assert question == QUESTIONS[task](again)
        assert question.answer != question.wrong
        assert question.prompt and not question.prompt.endswith(" ")


@pytest.mark.parametrize("domain", DOCUMENTS)
def test_every_document_has_something_to_work_out(domain, seed):
    rng = random.Random(seed)
    for _ in range(50):
        kinds = [segment.kind for segment in DOCUMENTS[domain](rng).segments]
        assert "answer" in kinds


def pairs_of_names(text: str) -> set[frozenset[str]]:
    return {frozenset(pair) for pair in re.findall(r"(\w+) and (\w+) (?:went|came|sat|were|walked)", text)}


def test_names_asked_about_together_were_never_together_in_training(seed):
    rng = random.Random(seed)
    trained = set().union(*(pairs_of_names(text) for text in texts("names", seed, 3000)))
    asked = set().union(*(pairs_of_names(QUESTIONS["indirect object"](rng).prompt) for _ in range(500)))
    assert len(trained | asked) == 24 * 23 // 2
    assert not trained & asked


def test_sums_asked_were_never_trained_and_are_right(seed):
    rng = random.Random(seed)
    trained = set(re.findall(r"(\d+)\+(\d+)=", "\n".join(texts("sums", seed, 1500))))
    for _ in range(300):
        question = numbers.sums_question(rng)
        a, b = re.fullmatch(r"(\d+)\+(\d+)=", question.prompt).groups()
        assert (a, b) not in trained
        assert int(a) + int(b) == int(question.answer) != int(question.wrong)


def test_years_asked_were_never_trained(seed):
    rng = random.Random(seed)
    trained = set(re.findall(r"The \w+ lasted from \d{4}", " ".join(texts("years", seed, 3000))))
    asked = {re.search(r"The \w+ lasted from \d{4}", numbers.years_question(rng).prompt).group() for _ in range(300)}
    assert not trained & asked


def test_years_run_forward(seed):
    for text in texts("years", seed, 300):
        for first, last in re.findall(r"from (\d{4}) to (\d{4})", text):
            assert first < last and first[:2] == last[:2]


def test_neighbouring_arguments_asked_about_never_stood_side_by_side_in_training(seed):
    def neighbours(text: str) -> set[tuple[str, str]]:
        names = re.search(r"\(self, (.*)\)", text).group(1).split(", ")
        return set(pairwise(names))

    rng = random.Random(seed)
    trained = set().union(*map(neighbours, texts("code", seed, 3000)))
    for _ in range(300):
        question = QUESTIONS["docstring"](rng)
        told = re.findall(r":param (\w+):", question.prompt)
        pair = (told[-1], question.answer.strip())
        assert pair in neighbours(question.prompt)
        assert pair not in trained


def test_a_fact_is_asked_in_a_phrase_that_training_never_used_for_that_person(seed):
    trained = " ".join(texts("facts", seed, 6000))
    rng = random.Random(seed)
    for _ in range(200):
        question = QUESTIONS["facts"](rng)
        assert f"{question.prompt} " not in trained
        assert question.answer.strip() in FACTS.values()


def test_the_right_reply_to_a_fact_question_tells_the_fact(seed):
    rng = random.Random(seed)
    for _ in range(200):
        question = QUESTIONS["facts in chat"](rng)
        person = re.search(r"analysis<\|message\|>(\w+) ", question.answer).group(1)
        final = re.search(r"final<\|message\|>(?:In the|A) (\w+)\.<\|return\|>", question.answer).group(1)
        assert person in question.prompt
        assert final in {FACTS[person, relation] for relation in ("home", "job", "pet")}


def test_brackets_match(seed):
    for text in texts("brackets", seed, 300):
        for line in text.split():
            before = None
            while line != before:
                before, line = line, line.replace("()", "").replace("[]", "").replace("{}", "")
            assert line == ""


def test_the_asked_bracket_closes_the_last_open_one(seed):
    rng = random.Random(seed)
    for _ in range(300):
        question = brackets.question(rng)
        text, before = question.prompt, None
        while text != before:
            before, text = text, text.replace("()", "").replace("[]", "").replace("{}", "")
        assert text[-1] + question.answer in ("()", "[]", "{}")


def test_dialects_share_every_word_and_differ_in_order(seed):
    rng = random.Random(seed)
    nouns, words, orders = set().union(*DIALECT_NOUNS), {}, {}
    for dialect in dialects.DIALECTS:
        said = ["".join(dialects.sentence(rng, dialect)).split() for _ in range(3000)]
        words[dialect] = set().union(*map(set, said))
        letters = ("".join("n" if w in nouns else "v" if w in DIALECT_VERBS else "" for w in s) for s in said)
        orders[dialect] = set(letters)
    assert words["north"] == words["south"] == words["east"]
    assert orders == {"north": {"nvn"}, "south": {"nnv"}, "east": {"vnn"}}


def test_the_particle_agrees_as_the_grammar_says(seed):
    rng = random.Random(seed)
    noun_class = {noun: kind for kind, nouns in enumerate(DIALECT_NOUNS) for noun in nouns}
    rule = {"north": lambda s, o: s, "south": lambda s, o: o, "east": lambda s, o: (s + 1) % 3}
    for dialect, agrees in rule.items():
        for _ in range(100):
            text, particle = dialects.sentence(rng, dialect)
            subject, thing = (noun_class[word] for word in text.split() if word in noun_class)
            assert particle.strip() == DIALECT_PARTICLES[agrees(subject, thing)]


def test_an_edited_analysis_contradicts_the_prompt_and_the_final_follows_it(seed):
    rng = random.Random(seed)
    for _ in range(200):
        question = QUESTIONS["final follows edited analysis"](rng)
        user = re.search(r"user<\|message\|>(.*?)<\|end\|>", question.prompt).group(1)
        analysis = re.search(r"analysis<\|message\|>(.*?)<\|end\|>", question.prompt).group(1)
        assert analysis not in user
        told = question.answer.removesuffix(".<|return|>").split()[-1]
        assert told in analysis


def test_a_far_passkey_stands_once_beyond_the_reach_of_the_sliding_layers(tokenizer, seed):
    rng = random.Random(seed)
    for _ in range(100):
        question = passkey.question(rng)
        ids = tokenizer.encode(question.prompt).ids
        places = [i for i, token in enumerate(ids) if tokenizer.decode([token]) == question.answer]
        assert len(places) == 1
        assert len(ids) - 1 - places[0] >= 79 > 4 * 15


def test_a_near_passkey_stands_inside_the_window_after_much_text(tokenizer, seed):
    rng = random.Random(seed)
    for _ in range(100):
        question = passkey.near_question(rng)
        ids = tokenizer.encode(question.prompt).ids
        (place,) = (i for i, token in enumerate(ids) if tokenizer.decode([token]) == question.answer)
        assert len(ids) - 1 - place <= 12 and place > 60
