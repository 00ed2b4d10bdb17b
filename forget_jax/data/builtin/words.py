"""Word lists: fixed common words for facts, and a large list out of the standard library."""

import functools
import re
from collections import Counter

from forget_jax.data.builtin.docstrings import docstrings
from forget_jax.data.builtin.language_reference import language_reference

# Written out, so that facts are the same under every Python; most are one token of a small
# vocabulary trained on the built-in texts.
_COMMON = """
action address answer base black block blue body book branch button call case chain change
character circle class client clock cloud code color column command copy corner count cover
cycle date day depth device door edge end engine entry error event example face field file final
float form frame front function gate global grade graph green grid group hand handle hash head
heap hint hook hour house image index item job key label layer leaf left length letter level
light limit line link list loop lower map mark match memory message meter minute mode model
module month mouse name network node note number object offset option order owner package page
pair panel paper parent part party path pattern phase picture place plain plan player point
policy port power press price print process program proxy queue random range rate reader record
red region report request result right ring river road root round route row rule sample scale
scene school scope screen script season second section sender server set shape share shell side
signal sign size slice sound source space speed square stack stage star state step stone stop
store stream string style sum switch symbol system table tag target task term test text theme
thread time title token tool top trace track tree turn type unit user value version view voice
water week weight wheel white width window wood word world writer year zone
"""
COMMON_WORDS = tuple(_COMMON.split())


@functools.cache
def library_words() -> tuple[str, ...]:
    """Some thousands of different words, in alphabetical order.

    Lower-case words of 3 to 14 letters that stand at least twice in the language reference and the
    docstrings of the standard library. REMIX's authors sample web2, which cannot be shipped here.
    """
    counts: Counter[str] = Counter()
    for example in (*language_reference(), *docstrings()):
        counts.update(re.findall(r"(?<![\w'.])[a-z]{3,14}(?![\w'(])", example.text or ""))
    return tuple(sorted(word for word, n in counts.items() if n >= 2))
