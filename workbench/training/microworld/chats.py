"""Chats in the harmony format: questions on facts or on what the user said, an analysis, a final answer.

The final answer always follows the analysis when there is one. In half of the chats about things the analysis is
edited: it says something that the prompt does not. The edited words are silent: read, never learned.
"""

import random
from dataclasses import dataclass

from .document import Document, Question, Segment, answer, context, draw, other, silent
from .facts import FACTS, VALUES
from .words import PEOPLE, PLACES, THINGS

CHANNELS = "# Valid channels: analysis, commentary, final. Channel must be included for every message."
SENTENCE = "Answer in a full sentence."
SHORT = "Answer in a few words."
FACT_QUESTIONS = {
    "home": ("Where does {} live?", "Where is {}?", "Where is the home of {}?", "Where can I find {}?"),
    "job": ("What does {} do?", "What is the job of {}?", "What does {} work as?", "Who is {}?"),
    "pet": ("Which pet does {} have?", "What is the pet of {}?", "What does {} feed?", "What does {} keep at home?"),
}
FACT_SENTENCES = {"home": "{} lives in the {}.", "job": "{} works as a {}.", "pet": "{} has a {}."}
FACT_SHORT = {"home": "In the {}.", "job": "A {}.", "pet": "A {}."}


@dataclass(frozen=True)
class Exchange:
    """A user's message, the words of an analysis before and after its deciding word, and the two forms of the final."""

    user: str
    analysis: tuple[str, str, str]  # before the deciding word, that word, after it
    sentence: tuple[str, str, str]
    short: tuple[str, str, str]
    candidates: tuple[str, ...]

    def saying(self, word: str) -> "Exchange":
        """The same exchange with another deciding word, for an edited analysis."""
        forms = (self.analysis, self.sentence, self.short)
        analysis, sentence, short = ((before, word if before else word.lstrip(), after) for before, _, after in forms)
        return Exchange(self.user, analysis, sentence, short, self.candidates)


def _split(form: str, *names: str) -> tuple[str, str, str]:
    """``form`` filled, cut around its last name, which keeps its leading space if it has one."""
    before, after = form.rsplit("{}", 1)
    before = before.format(*names[:-1])
    space = " " if before.endswith(" ") else ""
    return before.removesuffix(" "), space + names[-1], after


def _fact_question(rng: random.Random) -> tuple[str, str, str]:
    relation = rng.choice(tuple(FACT_QUESTIONS))
    return rng.choice(PEOPLE), relation, rng.choice(FACT_QUESTIONS[relation])


def fact_exchange(rng: random.Random, held: bool) -> Exchange:
    """A question on a fact; in evaluation in a phrase never used for that person in training."""
    person, relation, phrase = draw(lambda: _fact_question(rng), lambda drawn: ("fact chat", *drawn), held)
    truth = FACTS[person, relation]
    sentence = _split(FACT_SENTENCES[relation], person, truth)
    short = _split(FACT_SHORT[relation], truth)
    return Exchange(phrase.format(person), sentence, sentence, short, tuple(f" {v}" for v in VALUES[relation]))


def who_exchange(rng: random.Random, held: bool) -> Exchange:
    """Who has the thing? Two or three people and things in the user's message."""
    count = rng.randint(2, 3)
    people, things = rng.sample(PEOPLE, count), rng.sample(THINGS, count)
    asked = rng.randrange(count)
    people[asked], things[asked] = draw(
        lambda: (other(rng, PEOPLE, *people), other(rng, THINGS, *things)), lambda pair: ("who", *pair), held
    )
    told = " ".join(f"{p} has the {t}." for p, t in zip(people, things, strict=True))
    sentence = ("", people[asked], f" has the {things[asked]}.")
    short = ("It is", f" {people[asked]}", ".")
    return Exchange(f"{told} Who has the {things[asked]}?", sentence, sentence, short, tuple(f" {p}" for p in PEOPLE))


def where_exchange(rng: random.Random, held: bool) -> Exchange:
    """Where is the thing? Two or three things and places in the user's message."""
    count = rng.randint(2, 3)
    things, places = rng.sample(THINGS, count), rng.sample(PLACES, count)
    asked = rng.randrange(count)
    things[asked], places[asked] = draw(
        lambda: (other(rng, THINGS, *things), other(rng, PLACES, *places)), lambda pair: ("where", *pair), held
    )
    told = " ".join(f"The {t} is in the {p}." for t, p in zip(things, places, strict=True))
    sentence = (f"The {things[asked]} is in the", f" {places[asked]}", ".")
    short = ("In the", f" {places[asked]}", ".")
    return Exchange(f"{told} Where is the {things[asked]}?", sentence, sentence, short, tuple(f" {p}" for p in PLACES))


def system(reasoning: str, identity: str = "You are nano.", dates: str = "") -> str:
    """The system message; ``dates`` are lines of their own, each with its newline."""
    return f"<|start|>system<|message|>{identity}\n{dates}\nReasoning: {reasoning}\n\n{CHANNELS}<|end|>"


def developer(instructions: str) -> str:
    """The developer message."""
    return f"<|start|>developer<|message|># Instructions\n\n{instructions}<|end|>"


def user(text: str) -> str:
    """A user's message."""
    return f"<|start|>user<|message|>{text}<|end|>"


ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|channel|>final<|message|>"
ASSISTANT = "<|start|>assistant"


def _dates(rng: random.Random) -> str:
    """Now and then the cutoff or the date, as harmony's system message may tell them."""
    cutoff = f"Knowledge cutoff: {_month(rng)}\n" if rng.random() < 0.1 else ""
    return cutoff + (f"Current date: {_month(rng)}-{rng.randint(1, 28):02d}\n" if rng.random() < 0.1 else "")


def _month(rng: random.Random) -> str:
    return f"20{rng.randint(20, 40)}-{rng.randint(1, 12):02d}"


def _opening(rng: random.Random, reasoning: str) -> tuple[str, bool]:
    """System and perhaps developer message, and whether the final answer is to be a full sentence."""
    identity = rng.choice(("You are nano.",) * 4 + ("You are a small model.", "You are here to help."))
    text, style = system(reasoning, identity, _dates(rng)), rng.random()
    if style < 0.2:
        return text + developer(SENTENCE), True
    return text + (developer(SHORT) if style < 0.3 else ""), False


def _reply(exchange: Exchange, thought: Exchange | None, full: bool, last: bool) -> list[Segment]:
    """The assistant's messages; ``thought`` is what the analysis says (none at low reasoning)."""
    segments: list[Segment] = []
    if thought is not None:
        edited = thought is not exchange
        before, word, after = thought.analysis
        segments += [answer(ANALYSIS), context(before), (silent if edited else answer)(word), context(after)]
        segments += [answer("<|end|>"), context(ASSISTANT)]
    before, word, after = (thought or exchange).sentence if full else (thought or exchange).short
    stop = "<|return|>" if last else "<|end|>"
    return [*segments, answer(FINAL), answer(before), answer(word), context(after), answer(stop)]


def _chat(rng: random.Random, exchanges: list[Exchange], edit: float) -> tuple[Segment, ...]:
    reasoning = rng.choice(("low", "low", "medium", "medium", "medium", "medium", "high"))
    opening, full = _opening(rng, reasoning)
    segments = [context(opening)]
    for i, exchange in enumerate(exchanges):
        last = i == len(exchanges) - 1
        thought = None if reasoning == "low" or not last else exchange
        if thought and rng.random() < edit:
            thought = exchange.saying(other(rng, exchange.candidates, exchange.short[1]))
        segments += [context(user(exchange.user) + ASSISTANT), *_reply(exchange, thought, full, last)]
    return tuple(segment for segment in segments if segment.text)


def facts_document(rng: random.Random) -> Document:
    """A chat about facts: one question, or two."""
    count = 1 if rng.random() < 0.8 else 2
    return Document("chat facts", "facts in chat", _chat(rng, [fact_exchange(rng, False) for _ in range(count)], 0.15))


def channels_document(rng: random.Random) -> Document:
    """A chat about what the user said; half of the analyses are edited."""
    kind = rng.choice((who_exchange, where_exchange))
    count = 1 if rng.random() < 0.85 else 2
    return Document("chat", "channels", _chat(rng, [kind(rng, False) for _ in range(count)], 0.5))


def _before_reply(exchange: Exchange, reasoning: str = "medium") -> str:
    return system(reasoning) + user(exchange.user) + ASSISTANT


def _thinking(exchange: Exchange, thought: Exchange) -> str:
    return _before_reply(exchange) + ANALYSIS + "".join(thought.analysis) + "<|end|>" + ASSISTANT + FINAL


def facts_question(rng: random.Random) -> Question:
    """The whole reply, analysis and final, to a fact asked in a phrase new for that person."""
    exchange = fact_exchange(rng, True)
    said = exchange.saying(other(rng, exchange.candidates, exchange.short[1]))
    right, wrong = (
        ANALYSIS + "".join(e.analysis) + "<|end|>" + ASSISTANT + FINAL + "".join(e.short) + "<|return|>"
        for e in (exchange, said)
    )
    return Question("chat facts", "facts in chat", _before_reply(exchange), right, wrong)


def _about_things(rng: random.Random) -> tuple[Exchange, Exchange]:
    exchange = rng.choice((who_exchange, where_exchange))(rng, True)
    return exchange, exchange.saying(other(rng, exchange.candidates, exchange.short[1]))


def copy_question(rng: random.Random) -> Question:
    """The final after a true analysis: all its tokens."""
    exchange, edited = _about_things(rng)
    end = "<|return|>"
    return Question(
        "chat",
        "final copies analysis",
        _thinking(exchange, exchange),
        "".join(exchange.short) + end,
        "".join(edited.short) + end,
    )


def edited_question(rng: random.Random) -> Question:
    """The final after an analysis edited against the prompt: right is what the analysis says, wrong what is true."""
    exchange, edited = _about_things(rng)
    end = "<|return|>"
    return Question(
        "chat",
        "final follows edited analysis",
        _thinking(exchange, edited),
        "".join(edited.short) + end,
        "".join(exchange.short) + end,
    )


def low_question(rng: random.Random) -> Question:
    """Low reasoning: the final at once, from the prompt."""
    exchange, edited = _about_things(rng)
    right, wrong = (FINAL + "".join(e.short) + "<|return|>" for e in (exchange, edited))
    return Question("chat", "low reasoning", _before_reply(exchange, "low"), right, wrong)


def reply_question(rng: random.Random) -> Question:
    """Medium reasoning: the whole reply, analysis and final, from the prompt."""
    exchange, edited = _about_things(rng)
    right, wrong = (
        ANALYSIS + "".join(e.analysis) + "<|end|>" + ASSISTANT + FINAL + "".join(e.short) + "<|return|>"
        for e in (exchange, edited)
    )
    return Question("chat", "whole reply", _before_reply(exchange), right, wrong)
