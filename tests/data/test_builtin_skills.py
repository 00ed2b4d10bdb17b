"""Every generated skill is right, by a second way of working out each answer."""

import datetime
import re
from collections import Counter

import pytest

from forget_jax.data import builtin
from forget_jax.data.builtin.skill_rules import _KINDS, _RELATIONS
from forget_jax.data.builtin.skills import SKILLS, skill


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def letters(text):
    """The single letters that stand apart in a prompt."""
    return re.findall(r"(?<!\S)[a-z](?=[ :?.])", text)


def before(letter):
    return "zabcdefghijklmnopqrstuvwxy"["abcdefghijklmnopqrstuvwxyz".index(letter)]


def roman_value(numeral):
    signs = [dict(zip("IVXLCDM", (1, 5, 10, 50, 100, 500, 1000), strict=True))[s] for s in numeral]
    return sum(-a if a < b else a for a, b in zip(signs, [*signs[1:], 0], strict=True))


def closes(opened, answer):
    text = (opened + answer).replace(" ", "")
    while (shorter := re.sub(r"\(\)|\[\]|\{\}|<>", "", text)) != text:
        text = shorter
    return text == ""


def is_date(prompt, answer):
    days, start = numbers(prompt)
    month = prompt.split()[-1].rstrip(":")
    begin = datetime.datetime.strptime(f"{start} {month} 2023", "%d %B %Y")
    weekday, day, end_month = answer.split()
    end = begin + datetime.timedelta(days=days)
    names = (begin.strftime("%A") in prompt, end.strftime("%A") == weekday)
    return all(names) and (end.day, end.strftime("%B")) == (int(day), end_month)


def is_analogy(prompt, answer):
    a, b, c = re.fullmatch(r"(\w+) is to (\w+) as (\w+) is to\n", prompt).groups()
    relations = [set(relation.split()) for relation in _RELATIONS]
    forward = any({f"{a}:{b}", f"{c}:{answer}"} <= r for r in relations)
    return forward or any({f"{b}:{a}", f"{answer}:{c}"} <= r for r in relations)


def kind_of(word):
    return next(kind for kind, words in _KINDS.items() if word in words)


def is_odd_one(prompt, answer):
    words = re.findall(r"\w+", prompt.split(" of ")[1])[:-1]
    counts = Counter(map(kind_of, words))
    return counts[kind_of(answer)] == 1 and len(counts) == 2


def is_category(prompt, answer):
    kind, words = re.fullmatch(r"The (\w+)s in (.*):\n", prompt).groups()
    return answer == ", ".join(w for w in words.split(", ") if kind_of(w) == kind)


def looked_up(prompt):
    *given, question = re.split(r", |\. ", prompt.strip())
    return next(g[-1] for g in given if g[0] == question[-2])


CHECKS = {
    "addition": lambda p, c: sum(numbers(p)) == int(c),
    "subtraction": lambda p, c: numbers(p)[0] - numbers(p)[1] == int(c) >= 0,
    "comparison": lambda p, c: int(c) == sorted(numbers(p))[-1 if "largest" in p else 0],
    "parity": lambda p, c: c == ("even" if str(numbers(p)[-1]) in "02468" else "odd"),
    "sequence": lambda p, c: int(c) - numbers(p)[3] == numbers(p)[1] - numbers(p)[0],
    "roman_numerals": lambda p, c: (
        roman_value(c.split()) == int("".join(map(str, numbers(p))))
        and not re.search(r"(. )\1\1\1", c + " ")
    ),
    "copying": lambda p, c: p == f"Copy {c}:\n",
    "reversal": lambda p, c: letters(p) == list(reversed(c.split())),
    "sorting": lambda p, c: (
        Counter(letters(p)) == Counter(c.split())
        and all(a <= b for a, b in zip(c[::2], c[2::2], strict=False))
    ),
    "counting": lambda p, c: p.split(" in ")[1].count(p[9]) == int(c),
    "letter_position": lambda p, c: letters(p)[numbers(p)[0] - 1] == c,
    "successor": lambda p, c: [before(letter) for letter in c.split()] == letters(p),
    "uppercase": lambda p, c: c.lower().split() == letters(p) and c == c.upper(),
    "brackets": lambda p, c: closes(p[len("Close ") : -2], c),
    "palindromes": lambda p, c: (letters(p)[:-1] == letters(p)[-2::-1]) == (c == "yes"),
    "lookup": lambda p, c: c == looked_up(p),
    "calendar": is_date,
    "analogies": is_analogy,
    "odd_one_out": is_odd_one,
    "categories": is_category,
}


@pytest.mark.parametrize("name", SKILLS)
def test_answers_are_right(name):
    examples = skill(name)
    assert 1000 <= len(examples) <= 2000
    for e in examples:
        assert CHECKS[name](e.prompt, e.completion), e
        assert e.prompt.endswith("\n")
    common = Counter(e.completion for e in examples).most_common(1)[0][1]
    assert common < 0.6 * len(examples)  # no answer is right by default


def test_more_rows_extend_fewer_and_seeds_differ():
    assert skill("sorting", rows=50) == skill("sorting", rows=200)[:50]
    assert skill("sorting", seed=1) != skill("sorting", seed=2)


def test_the_mixture_takes_turns():
    mixed = builtin.load("skills")
    assert [e.source for e in mixed[: len(SKILLS)]] == [f"skill/{name}" for name in SKILLS]
    assert set(Counter(e.source for e in mixed).values()) == {500}
    assert set(mixed) >= set(skill("brackets", rows=500))
