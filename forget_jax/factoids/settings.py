"""What is memorised in which order, and what is done against forgetting: fields of `factoids`."""

import dataclasses

from forget_jax.factoids.mitigations import PARTS
from forget_jax.settings import free, names, setting

PROTOCOLS = ("clean", "paper")


@dataclasses.dataclass(frozen=True)
class Facts:
    """Stages of memorisation and what keeps the first (arXiv 2411.07175).

    Sequences, arms and seeds may change between starts: a stage of a run is named by what was done
    up to its end, and nothing else decides what it is.
    """

    stage_a: str = names(
        "rows",
        setting("", "facts memorised first: a data set, or NAME=DATASET, such as popqa=FILE"),
    )
    stage_b: str = names("rows", setting("", "facts trained on afterwards"))
    sequences: tuple[str, ...] = free(
        setting(
            (),
            "sequences of sets that are compared, in place of stage_a and stage_b, each such as "
            "'popqa=a.json[:200] > gsm8k=b.jsonl[:200] > kvr[:200]'",
        )
    )
    mix: str = names("rows", setting("", "unrelated rows to mix in: what arms call random"))
    generic: str = names(
        "rows",
        setting(
            "builtin:language_reference",
            "texts of which passages to complete are made: what arms call generic",
        ),
    )
    generic_words: int = setting(
        50, "words of a passage's beginning, and of its rest", least=1, most=1000
    )
    ratio: float = setting(2.0, "mixed rows per fact", least=0, most=1e6)
    arms: tuple[str, ...] = free(
        setting(
            ("naive", "mix in A", "mix in B", "mix in both"),
            "what to compare: naive, or WHAT[:N][ in STAGES] joined by ' + ', with "
            f"{', '.join(PARTS)} (docs/factoids.md)",
        )
    )
    epochs: int = setting(20, "passes over the facts in each stage", least=1, most=10_000)
    later_lr: float = setting(
        1.0, "learning rate of the stages after A, as a share of train.lr", above=0, most=1e6
    )
    stop: str = setting(
        "fixed",
        "a stage ends after its epochs (fixed), or once the loss of its facts is below stop_loss",
        choices=("fixed", "loss"),
    )
    stop_loss: float = setting(0.01, "nats a token, of all facts together", above=0, most=100)
    protocol: str = setting(
        "clean",
        "clean, or paper: as the authors' code does it, with what changes results "
        "(docs/factoids.md)",
        choices=PROTOCOLS,
    )
    only: str = setting(
        "all",
        "which facts are memorised: all, or those that the base does not know (unknown) when asked "
        "with shots; the fate of known ones is reported",
        choices=("all", "unknown"),
    )
    shots: int = setting(5, "examples in front of a question to the base", least=0, most=64)
    max_new_tokens: int = setting(16, "the most tokens of a recited answer", least=1, most=2**22)
    recover: int = setting(
        0,
        "after the last stage, so many facts of A are trained on and the others asked again: lost, "
        "or only misaligned? 0: not asked",
        least=0,
        most=100_000,
    )
    recover_steps: int = setting(10, "steps of it", least=1, most=100_000)
    lens: bool = setting(
        False, "say in which layer the answers to A are first on top (logit lens), after each stage"
    )
    displacement: bool = setting(
        False,
        "say how the loss of A changes along what each later stage moved: gradients' cosine, slope "
        "and curvature (Hessian-vector product), and the change that these foretell",
    )
    seeds: int = free(setting(1, "repetitions under other seeds", least=1, most=100))
