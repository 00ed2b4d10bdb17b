"""The rules of the generated skills: each makes one (prompt, completion) from a random generator.

Letters and symbols stand apart, so that any vocabulary sees them one by one. A prompt ends in a
line end, the completion has no blank ends. Every rule has thousands of different prompts.
"""

import calendar as _calendar
import datetime
import string
from collections.abc import Sequence
from random import Random

Row = tuple[str, str]

_DAYS = tuple(_calendar.day_name)
_MONTHS = tuple(_calendar.month_name)[1:]
_OPENING, _CLOSING = "([{<", ")]}>"
_WORDS_OF_KIND = {
    "animal": "dog cat cow horse sheep bear wolf fox mouse duck goat lion",
    "colour": "red blue green white black yellow brown pink grey purple",
    "food": "bread rice soup cheese apple egg cake bean butter salad",
    "tool": "hammer saw knife drill brush needle shovel axe spoon rope",
    "place": "house school river forest city farm beach market garden road",
}
_KINDS = {kind: words.split() for kind, words in _WORDS_OF_KIND.items()}
_RELATIONS = (
    "dog:puppy cat:kitten cow:calf sheep:lamb horse:foal goat:kid bear:cub duck:duckling "
    "hen:chick pig:piglet frog:tadpole deer:fawn swan:cygnet goose:gosling",
    "big:small hot:cold up:down left:right open:closed day:night full:empty fast:slow old:new "
    "first:last light:dark hard:soft high:low true:false",
    "one:first two:second three:third four:fourth five:fifth six:sixth seven:seventh eight:eighth "
    "nine:ninth ten:tenth eleven:eleventh twelve:twelfth",
    "go:went see:saw take:took give:gave run:ran make:made know:knew write:wrote read:read "
    "find:found keep:kept hold:held send:sent tell:told",
    "bee:hive bird:nest bear:cave king:castle horse:stable pig:sty dog:kennel spider:web "
    "rabbit:burrow lion:den monk:cell sailor:ship farmer:farm teacher:school",
    "mouse:mice foot:feet tooth:teeth man:men child:children goose:geese leaf:leaves wolf:wolves "
    "city:cities box:boxes bus:buses day:days key:keys tree:trees",
    "bread:baker shoe:cobbler song:singer book:writer picture:painter house:builder dress:tailor "
    "film:director garden:gardener meal:cook field:farmer law:judge",
    "France:Paris Italy:Rome Spain:Madrid Egypt:Cairo Japan:Tokyo Peru:Lima Kenya:Nairobi "
    "Cuba:Havana Greece:Athens Norway:Oslo Poland:Warsaw Chile:Santiago Iraq:Baghdad",
    "Paris:French Rome:Italian Madrid:Spanish Tokyo:Japanese Athens:Greek Oslo:Norwegian "
    "Warsaw:Polish Berlin:German London:English Moscow:Russian Lisbon:Portuguese Beijing:Chinese",
    "hand:glove foot:sock head:hat neck:scarf finger:ring eye:glasses wrist:watch waist:belt "
    "ear:plug face:mask knee:pad shoulder:strap",
    "see:eye hear:ear smell:nose taste:tongue touch:skin think:brain walk:leg grip:hand bite:tooth "
    "breathe:lung pump:heart kick:foot",
    "teach:teacher write:writer sing:singer paint:painter build:builder drive:driver run:runner "
    "dance:dancer farm:farmer lead:leader print:printer read:reader sail:sailor act:actor",
)


def _letters(
    rng: Random, least: int, most: int, alphabet: str = string.ascii_lowercase
) -> list[str]:
    return rng.choices(alphabet, k=rng.randint(least, most))


def _spaced(symbols: Sequence[str]) -> str:
    return " ".join(symbols)


def addition(rng: Random) -> Row:
    a, b = rng.randrange(100), rng.randrange(100)
    return f"{a} + {b} =\n", str(a + b)


def subtraction(rng: Random) -> Row:
    a, b = sorted((rng.randrange(100), rng.randrange(100)))
    return f"{b} - {a} =\n", str(b - a)


def comparison(rng: Random) -> Row:
    numbers = rng.sample(range(100), 3)
    most = rng.random() < 0.5
    word = "largest" if most else "smallest"
    return f"The {word} of {_listed(numbers)} is\n", str((max if most else min)(numbers))


def parity(rng: Random) -> Row:
    number = rng.randrange(10_000)
    return f"Is {_spaced(str(number))} even or odd?\n", "odd" if number % 2 else "even"


def sequence(rng: Random) -> Row:
    start, step = rng.randrange(60), rng.randint(1, 40)
    return f"Continue {_listed([start + step * i for i in range(4)])}:\n", str(start + step * 4)


def roman_numerals(rng: Random) -> Row:
    number = rest = rng.randint(1, 3999)
    numeral = ""
    for sign, value in zip(
        ["M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"],
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        strict=True,
    ):
        numeral += sign * (rest // value)
        rest %= value
    return f"{_spaced(str(number))} in Roman numerals:\n", _spaced(numeral)


def copying(rng: Random) -> Row:
    symbols = _spaced(_letters(rng, 3, 8))
    return f"Copy {symbols}:\n", symbols


def reversal(rng: Random) -> Row:
    symbols = _letters(rng, 3, 7)
    return f"Reverse {_spaced(symbols)}:\n", _spaced(symbols[::-1])


def sorting(rng: Random) -> Row:
    symbols = _letters(rng, 3, 6)
    return f"Sort {_spaced(symbols)}:\n", _spaced(sorted(symbols))


def counting(rng: Random) -> Row:
    wanted = rng.choice("abcd")
    symbols = _letters(rng, 4, 9, "abcd")
    return f"How many {wanted} in {_spaced(symbols)}?\n", str(symbols.count(wanted))


def letter_position(rng: Random) -> Row:
    symbols = _letters(rng, 4, 7)
    n = rng.randrange(len(symbols))
    return f"Letter {n + 1} of {_spaced(symbols)}:\n", symbols[n]


def successor(rng: Random) -> Row:
    symbols = _letters(rng, 2, 5)
    following = [chr((ord(s) - ord("a") + 1) % 26 + ord("a")) for s in symbols]
    return f"One letter on from {_spaced(symbols)}:\n", _spaced(following)


def uppercase(rng: Random) -> Row:
    symbols = _spaced(_letters(rng, 3, 7))
    return f"Capitals of {symbols}:\n", symbols.upper()


def brackets(rng: Random) -> Row:
    """Closes what is open: pairs that are closed already stand between the open ones."""
    prompt: list[str] = []
    still_open: list[int] = []
    for _ in range(rng.randint(3, 8)):
        if still_open and rng.random() < 0.3:
            prompt.append(_CLOSING[still_open.pop()])
        else:
            still_open.append(rng.randrange(4))
            prompt.append(_OPENING[still_open[-1]])
    if not still_open:
        still_open.append(rng.randrange(4))
        prompt.append(_OPENING[still_open[-1]])
    return f"Close {_spaced(prompt)}:\n", _spaced([_CLOSING[i] for i in reversed(still_open)])


def palindromes(rng: Random) -> Row:
    half = _letters(rng, 2, 4)
    middle = _letters(rng, 0, 1)
    symbols = half + middle + half[::-1]
    if rng.random() < 0.5:
        n = rng.randrange(len(half))
        symbols[n] = rng.choice([s for s in string.ascii_lowercase if s != symbols[n]])
    answer = "yes" if symbols == symbols[::-1] else "no"
    return f"Is {_spaced(symbols)} a palindrome?\n", answer


def lookup(rng: Random) -> Row:
    keys = rng.sample(string.ascii_lowercase, rng.randint(2, 5))
    values = [rng.randrange(10) for _ in keys]
    n = rng.randrange(len(keys))
    given = ", ".join(f"{k} is {v}" for k, v in zip(keys, values, strict=True))
    return f"{given}. What is {keys[n]}?\n", str(values[n])


def calendar(rng: Random) -> Row:
    """The date some days after a given one, in years that are not leap years."""
    start = datetime.date(2023, 1, 1) + datetime.timedelta(days=rng.randrange(365))
    days = rng.randint(1, 14)
    end = start + datetime.timedelta(days=days)
    shown = f"{_DAYS[start.weekday()]} {start.day} {_MONTHS[start.month - 1]}"
    unit = "day" if days == 1 else "days"
    answer = f"{_DAYS[end.weekday()]} {end.day} {_MONTHS[end.month - 1]}"
    return f"{days} {unit} after {shown}:\n", answer


def analogies(rng: Random) -> Row:
    pairs = [pair.split(":") for pair in rng.choice(_RELATIONS).split()]
    (a, b), (c, d) = rng.sample(pairs, 2)
    if rng.random() < 0.5:
        a, b, c, d = b, a, d, c
    return f"{a} is to {b} as {c} is to\n", d


def odd_one_out(rng: Random) -> Row:
    kind, other = rng.sample(sorted(_KINDS), 2)
    words = rng.sample(_KINDS[kind], 3)
    odd = rng.choice(_KINDS[other])
    words.insert(rng.randrange(4), odd)
    return f"The odd one out of {_listed(words)} is\n", odd


def categories(rng: Random) -> Row:
    kind, other = rng.sample(sorted(_KINDS), 2)
    n = rng.randint(1, 3)
    wanted = rng.sample(_KINDS[kind], n)
    words = wanted + rng.sample(_KINDS[other], 4 - n)
    rng.shuffle(words)

    return f"The {kind}s in {_listed(words)}:\n", _listed([w for w in words if w in wanted])


def _listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items))
