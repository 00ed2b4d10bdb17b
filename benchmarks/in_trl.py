"""A LoRA fine-tune in TRL's trainer, after the recipe of one of our own runs."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from forget_jax.data.examples import Example
from forget_jax.integrations.trainer import ForgettingCallback
from forget_jax.lm.hf import about


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What both sides share; the optimizer is AdamW, the learning rate falls linearly to 0."""

    model: str
    steps: int
    batch_size: int
    lr: float
    warmup: int
    rank: int
    alpha: float
    context: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Recipe":
        """Of a run's config.json."""
        train, lora = config["train"], config["lora"]
        return cls(
            config["model"]["path"],
            *(train["steps"], train["batch_size"], train["lr"], train["warmup"]),
            *(lora["rank"], lora["alpha"]),
            config["data"]["context"],
        )


def tokenizer(recipe: Recipe) -> Any:
    """The base's, as transformers reads it."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(about.folder(recipe.model))


def rows(examples: Sequence[Example]) -> Any:
    """As a data set with TRL's columns: a text is a completion of nothing."""
    import datasets

    said = [(e.prompt or "", e.completion if e.text is None else e.text) for e in examples]
    return datasets.Dataset.from_list([{"prompt": p, "completion": c} for p, c in said])


def fine_tune(
    recipe: Recipe,
    data: Any,
    folder: pathlib.Path,
    callback: ForgettingCallback | None = None,
) -> Any:
    """Trains, writes `adapter/` into the folder, and returns the trainer."""
    import peft
    import torch
    import transformers
    import trl

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        about.folder(recipe.model), dtype=torch.float32
    )
    settings = trl.SFTConfig(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.lr,
        warmup_steps=recipe.warmup,
        max_length=recipe.context,
        completion_only_loss=True,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        logging_steps=8,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    lora = peft.LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    trainer = trl.SFTTrainer(
        model, settings, train_dataset=data, processing_class=tokenizer(recipe), peft_config=lora
    )
    if callback is not None:
        callback.attach(trainer)
    trainer.train()
    trainer.model.save_pretrained(folder / "adapter")
    return trainer
