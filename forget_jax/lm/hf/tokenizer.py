"""Tokenizers: train a small one, load any other through `AutoTokenizer`, save beside a checkpoint.

Which special tokens are put on is never left to the tokenizer: callers tokenise with `encode`,
which puts on none, and put BOS and EOS on themselves. `SpecialTokens` says what exists and what the
tokenizer would have done by itself, so that a run can print both.
"""

import atexit
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path as LocalPath
from typing import TYPE_CHECKING, Any

from forget_jax import files, foreign, stderr
from forget_jax.errors import UserError, one_line
from forget_jax.lm.hf import shipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def transformers() -> Any:
    """The transformers package, imported late (1.5 s) and without its advice about torch."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers

    return transformers


def train(texts: Iterable[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer (no text is out of vocabulary), the same for the same texts.

    Digits are split one by one, so arithmetic sees place values. Ids 0, 1 and 2 are <s>, </s> and
    <pad>. By itself it puts <s> in front of a text.

    Args:
      texts: read once.
      vocab_size: the most entries, special tokens among them; a small corpus may yield fewer.

    Raises:
      UserError: `vocab_size` below 259 (256 bytes and three special tokens).
    """
    if vocab_size < 259:
        raise UserError(
            f"a byte-level tokenizer needs vocab_size >= 259 (256 bytes, {BOS} {EOS} {PAD}), "
            f"not {vocab_size}"
        )
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The base is pretrained with it, so everybody who asks the tokenizer puts it on.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 0)]
    )
    return transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def load(path: files.PathLike) -> Any:
    """The tokenizer of a local folder, a `gs://` folder or a hub name; never runs remote code.

    Raises:
      UserError: no tokenizer there, or one that needs its own code.
    """
    name = os.fspath(path)
    if not files.is_local(name):
        return _load(str(fetch(name, lambda file: file.endswith(TOKENIZER_FILES))), name)
    return _load(str(shipped.folder(name) or name), name)


TOKENIZER_FILES = (".json", ".model", ".txt", ".jinja")
# What transformers reads beside each other, config.json where nothing else names the class.
JSONS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    "config.json",
)


def fetch(path: str, wanted: Callable[[str], bool]) -> LocalPath:
    """A local copy, until the process ends, of the wanted files of a remote folder.

    Args:
      path: such as `gs://bucket/folder`.
      wanted: of a file's name, whether it is copied.

    Raises:
      UserError: no such folder.
    """
    remote = files.Path(path)
    if not remote.is_dir():
        raise UserError(f"{path} is not a folder that can be read")
    local = LocalPath(tempfile.mkdtemp(prefix="forget_jax_"))
    atexit.register(shutil.rmtree, local, ignore_errors=True)
    for file in remote.iterdir():
        if wanted(file.name) and not file.is_dir():
            file.copy(local / file.name)
    return local


def _load(name: str, shown: str) -> Any:
    if is_folder_name(name):
        folder = LocalPath(name)
        if not folder.is_dir():
            raise UserError(f"{shown} is not a folder (and not a hub name): no tokenizer there")
        if wrong := [f for f in JSONS if (folder / f).is_dir()]:
            raise UserError(f"{shown}/{wrong[0]} is a folder; it must be a file")
        names = [f.name for f in folder.iterdir() if f.is_file()]
        if not any(name.startswith(("tokenizer", "vocab")) for name in names):
            if (folder / "model").is_dir():  # what commands make: a workdir that has the model
                raise UserError(f"{shown} is a workdir, not a model: give {shown}/model")
            raise UserError(
                f"{shown} holds no tokenizer (tokenizer.json, tokenizer.model or vocab.*); "
                "copy it there from the base model"
            )
    library = transformers()
    try:
        with stderr.held(is_panic):
            loaded = library.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            loaded.decode(loaded("a")["input_ids"])
        special = {*loaded.all_special_tokens, *loaded.get_added_vocab()}
        empty = not set(loaded.get_vocab()) - special
        broken = None
    except BaseException as e:
        if not is_broken(e):
            raise
        broken = e
    if broken is not None:
        _diagnose(LocalPath(name), shown)
        reason = one_line(str(broken), 300)
        if "trust_remote_code" in reason:
            reason = "it needs code of its own, which is never run"
        raise UserError(f"cannot load a tokenizer from {shown}: {reason}") from broken
    if empty:
        raise UserError(f"the tokenizer of {shown} is empty: no text has tokens; copy the base's")
    _check_kept(loaded, shown)
    for key in ("is_local", "local_files_only"):  # how it was loaded: no part of what it is
        loaded.init_kwargs.pop(key, None)
    loaded.name_or_path = shown  # and no copy's place
    return loaded


def _check_kept(loaded: Any, shown: str) -> None:
    """Refuses what could not be saved again beside a model, which is after its training."""
    held = loaded.chat_template
    templates = list(held.values()) if isinstance(held, dict) else [held or ""]
    if wrong := [t for t in templates if not isinstance(t, str)]:
        said = foreign.in_words(wrong[0])
        raise UserError(f"{shown}: a chat template is {said}; it must be text, or be taken out")
    try:
        json.dumps([loaded.init_kwargs, held], default=str, ensure_ascii=False).encode()
    except UnicodeEncodeError as e:
        half = e.object[e.start].encode("ascii", "backslashreplace").decode()
        raise UserError(
            f"{shown}: the tokenizer's settings hold half a character ({half}); take it out of "
            "tokenizer_config.json"
        ) from e


def is_broken(e: BaseException) -> bool:
    """Whether a tokenizer has failed; transformers raises a dozen kinds, tokenizers its panic."""
    return isinstance(e, Exception) or is_panic(e)


def is_panic(e: BaseException) -> bool:
    """Whether it is a panic of Rust, which prints itself; its class has no place to import."""
    return type(e).__name__ == "PanicException"


class Unreadable(UserError):
    """A text that a tokenizer cannot read.

    Attributes:
      text: the whole of it, by which callers know whose it is.
    """

    def __init__(self, tokenizer: Any, text: str, reason: str):
        named = getattr(tokenizer, "name_or_path", "")
        super().__init__(
            f"the tokenizer{f' of {named}' if named else ''} cannot read "
            f"{foreign.in_words(text)}: {one_line(reason, 200)}"
        )
        self.text = text


def encode(tokenizer: Any, texts: Iterable[str], **options: Any) -> Any:
    """What a tokenizer makes of texts, without special tokens around them.

    Args:
      tokenizer: of transformers.
      options: further ones of its call.

    Raises:
      Unreadable: the tokenizer fails, as one does that knows no token for unknown words; names the
        first text for which it does.
    """
    texts = list(texts)
    try:
        with stderr.held(is_panic):
            return tokenizer(texts, add_special_tokens=False, verbose=False, **options)
    except BaseException as e:
        if not is_broken(e):
            raise
        if len(texts) == 1:
            raise Unreadable(tokenizer, texts[0], str(e)) from e
        broken = e
    for text in texts:
        encode(tokenizer, [text], **options)
    raise broken  # each by itself is read, so no text is at fault


def _diagnose(folder: LocalPath, shown: str) -> None:
    """Names the JSON file that stops a tokenizer from loading, where one of them is none."""
    for name in JSONS:
        file = folder / name
        if file.exists():
            where = f"{shown}/{name}"
            foreign.record(foreign.parse(file.read_bytes(), where), where)


def is_folder_name(name: str) -> bool:
    """Whether a name means a folder: it exists, or cannot be `owner/model` on the hub."""
    return LocalPath(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1


def save(tokenizer: Any, path: files.PathLike) -> None:
    """Writes the tokenizer's files into the folder, each atomically.

    Args:
      tokenizer: of transformers.
      path: local or on a store; made where it is missing.

    Raises:
      UserError: the folder cannot be written to.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in sorted(LocalPath(folder).rglob("*")):
            if file.is_file():
                target = files.Path(path) / str(file.relative_to(folder))
                files.write_bytes(target, file.read_bytes())


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """What special tokens a tokenizer has, and what it puts on by itself.

    Attributes:
      bos, eos, pad: `(token, id)` or None.
      adds_bos, adds_eos: what the tokenizer's own rule would add to a text.
    """

    bos: tuple[str, int] | None
    eos: tuple[str, int] | None
    pad: tuple[str, int] | None
    adds_bos: bool
    adds_eos: bool

    def line(self, bos: bool, eos: bool) -> str:
        """One line for people: what is put on here, beside the tokenizer's own habit.

        Args:
          bos: whether a BOS token is put in front of every text here.
          eos: whether an EOS token is put behind it.
        """

        def show(name: str, token: tuple[str, int] | None, used: bool, habit: bool) -> str:
            if token is None:
                return f"{name}: the tokenizer has none"
            return (
                f"{name}: {token[0]} (id {token[1]}) {'put on' if used else 'not put on'}"
                f" (the tokenizer by itself: {'yes' if habit else 'no'})"
            )

        return "; ".join(
            [show("BOS", self.bos, bos, self.adds_bos), show("EOS", self.eos, eos, self.adds_eos)]
        )


def special_tokens(tokenizer: Any) -> SpecialTokens:
    """The special tokens of a tokenizer (of transformers) and its own rule for putting them on."""

    def named(kind: str) -> tuple[str, int] | None:
        token, id_ = getattr(tokenizer, f"{kind}_token"), getattr(tokenizer, f"{kind}_token_id")
        return None if id_ is None else (str(token), int(id_))

    bos, eos = named("bos"), named("eos")
    ids = tokenizer("a")["input_ids"]
    return SpecialTokens(
        bos=bos,
        eos=eos,
        pad=named("pad"),
        adds_bos=bool(bos and ids and ids[0] == bos[1]),
        adds_eos=bool(eos and ids and ids[-1] == eos[1]),
    )
