"""Text is cut into passages that lose nothing, are not too long and read well."""

from hypothesis import given
from hypothesis import strategies as st

from forget_jax.data import sources
from forget_jax.data.passages import split_articles, split_passages

texts = st.lists(
    st.sampled_from(["word", "a", "It ends.", "\n", "\n\n", " ", "    ", "= H =", "x" * 30, "\r\n"])
).map(" ".join)


@given(texts, st.integers(10, 60))
def test_passages_hold_all_text_and_no_more(text, most):
    passages = split_passages(text, most)
    assert "".join("".join(passages).split()) == "".join(text.split())
    assert all(p == p.strip() and 0 < len(p) <= most for p in passages)
    articles = split_articles(text, most)
    assert "".join("".join(articles).split()) == "".join(text.split())
    assert all(p == p.strip() and 0 < len(p) <= most for p in articles)


def test_passages_are_even_and_end_with_sentences():
    text = "\n\n".join("A sentence of some words stands here. " * 5 for _ in range(20))
    passages = split_passages(text, 900)
    assert len(passages) <= 6
    assert all(450 < len(p) <= 900 and p.endswith(".") for p in passages)


def test_long_paragraph_without_sentences_is_cut_between_words():
    passages = split_passages("word " * 400, 300)
    assert all(set(p.split()) == {"word"} for p in passages)


def test_headings_and_lead_ins_stay_with_what_follows():
    prose = "Some prose stands here. " * 8
    text = f"{prose}\n\nTitle\n=====\n\n{prose}\n\nlist.append(x)\n\n   {prose}"
    first, second, third = split_passages(text, 250)
    assert first == prose.strip()
    assert second.startswith("Title\n=====\n\nSome")
    assert third.startswith("list.append(x)\n\n   Some")


def test_wikitext_articles_do_not_share_a_passage(tmp_path):
    path = tmp_path / "wiki.txt"
    path.write_text(
        " \n = One = \n \n First . \n \n = = Part = = \n \n More . \n \n = Two = \n \n Last . \n"
    )
    one, two = sources.load(str(path))
    assert " ".join(one.text.split()) == "= One = First . = = Part = = More ."
    assert " ".join(two.text.split()) == "= Two = Last ."
    assert (one.name, two.name, two.source) == ("wiki#0", "wiki#1", "wiki")
