"""The chapters of `check`: losses and answers of fine-tunes beside those of their base."""

from forget_jax import report as room
from forget_jax.commands import check_texts, summaries
from forget_jax.report import Section


def check(summary: summaries.Check) -> list[Section]:
    """What was lost on sets, and how answers to prompts changed, each where it was asked for."""
    found = [
        room.Checked(
            model=model,
            set=name,
            examples=c.examples,
            z=c.z,
            low=c.low,
            high=c.high,
            z_tokens=c.z_tokens,
            noise=c.noise,
            lost=(said := check_texts.answers(c))[0],
            gained=said[1],
            p=said[2],
            limit=c.limit,
            verdict=check_texts.verdict(c),
            over=bool(c.over),
            worst=[(w.example, w.z, w.lost, w.text) for w in c.worst],
        )
        for model, of in summary.sets.items()
        for name, c in of.items()
    ]
    over = list(check_texts.over(summary.sets))
    answered = [
        room.Behaved(
            model=model,
            set=name,
            prompts=a.prompts,
            same=(a.same.share, a.same.low, a.same.high),
            alike=a.alike.share,
            right=_flips(a.right),
            refused=_flips(a.refused),
            limit=a.limit,
            over=a.over,
            changed=[(c.example, c.fate, c.prompt, c.before, c.after) for c in a.changed],
        )
        for model, of in summary.behaviour.items()
        for name, a in of.items()
    ]
    checked = room.check_section(found, over, summary.unit, summary.level)
    behaviour = room.behaviour_section(answered, summary.level)
    return [checked] * bool(found) + [behaviour] * bool(answered)


def _flips(f: summaries.Flipped | None) -> room.Flips | None:
    if f is None:
        return None
    held = (check_texts.held(f, "before"), check_texts.held(f, "after"))
    return room.Flips(*held, f.lost, f.gained, f.p)
