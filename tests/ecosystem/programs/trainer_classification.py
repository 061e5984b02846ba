"""A text classifier, as the Trainer's tutorial fine-tunes one, with everything made up here."""

import tempfile

import numpy as np
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

WORDS = 32


def make_dataset(size, first):
    numbers = range(first, first + size)
    return Dataset.from_dict(
        {
            "input_ids": [[(i * k) % WORDS for k in range(1, 7)] for i in numbers],
            "attention_mask": [[1] * 6 for _ in numbers],
            "label": [i % 2 for i in numbers],
        }
    )


def compute_metrics(eval_pred):
    logits, labels = eval_pred
    predictions = np.argmax(logits, axis=-1)
    return {"accuracy": float((predictions == labels).mean())}


def main():
    set_seed(42)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
            num_labels=2,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        training_args = TrainingArguments(
            output_dir=folder,
            eval_strategy="epoch",
            save_strategy="no",
            num_train_epochs=2,
            per_device_train_batch_size=8,
            dataloader_num_workers=2,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(
            model=model,
            args=training_args,
            train_dataset=make_dataset(64, 0),
            eval_dataset=make_dataset(16, 64),
            data_collator=default_data_collator,
            compute_metrics=compute_metrics,
        )
        result = trainer.train()
        print(f"steps: {result.global_step}")
        print(f"train_loss: {result.training_loss:.6f}")
        print(f"eval_loss: {trainer.evaluate()['eval_loss']:.6f}")


if __name__ == "__main__":
    main()
