"""The few lines that make other trainers train on a mix."""

import json
from collections.abc import Mapping


def snippets(model: str, folder: str, conversations: bool) -> Mapping[str, str]:
    """By trainer, what to paste.

    Args:
      model: path or name of the base.
      folder: where train.jsonl, uniform.jsonl and dataset/ lie.
      conversations: whether the rows are messages, rather than prompts and completions.
    """
    rows = f"{folder}/uniform.jsonl"
    shape = (
        {"type": "chat_template", "field_messages": "messages", "roles_to_train": ["assistant"]}
        if conversations
        else {
            "type": {"field_instruction": "prompt", "field_output": "completion"}
            | {"format": "{instruction}", "no_input_format": "{instruction}"}
        }
    )
    loss = "assistant_only_loss=True" if conversations else "completion_only_loss=True"
    trl = f"""from datasets import load_from_disk
from trl import SFTConfig, SFTTrainer

rows = load_from_disk({folder + "/dataset"!r})
SFTTrainer({model!r}, SFTConfig({loss}), train_dataset=rows).train()"""
    tags = (
        {"messages": "messages"}
        if conversations
        else {"prompt": "prompt", "response": "completion"}
    )
    llama = {"mix": {"file_name": rows, "columns": tags}}
    if conversations:
        llama["mix"] |= {
            "formatting": "sharegpt",
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
    template = "" if conversations else "; train with template: empty"
    axolotl = {"datasets": [{"path": rows, "ds_type": "json", **shape}]}
    ours = f"--config=finetune:{model} --config.data.path={folder}/train.jsonl"
    return {
        "forget_jax": f"forget-jax finetune {ours}",
        "TRL": trl,
        "axolotl (YAML reads JSON)": json.dumps(axolotl, indent=2),
        f"LLaMA-Factory (dataset_info.json{template})": json.dumps(llama, indent=2),
    }
