"""One adapter by TRL's SFTTrainer with PEFT, as its documentation trains one: `python trl_one.py SETTINGS.json`."""

import json
import sys
from pathlib import Path
from typing import Any


def rows(file: Path) -> list[dict[str, Any]]:
    """Reads a dataset of ours in TRL's form of prompt and completion: the loss counts on the last answer."""
    examples = [json.loads(line)["messages"] for line in file.read_text().splitlines()]
    chats = [[{"role": m["role"], "content": m["content"]} for m in messages] for messages in examples]
    return [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats]


def main(settings: dict[str, Any]) -> None:
    """Trains and saves."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        output_dir=settings["output"],
        num_train_epochs=settings["epochs"],
        learning_rate=settings["learningRate"],
        per_device_train_batch_size=settings["batchSize"],
        bf16=False if settings["cpu"] else None,  # None: its default
        use_cpu=settings["cpu"],
        gradient_checkpointing=False,  # on by default, which only costs time where memory is enough
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    lora = LoraConfig(r=settings["rank"], lora_alpha=settings["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")
    data = Dataset.from_list(rows(Path(settings["data"])))
    trainer = SFTTrainer(model=settings["model"], args=config, train_dataset=data, peft_config=lora)
    trainer.train()
    trainer.save_model(settings["output"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
