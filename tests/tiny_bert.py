"""A tiny model folder, complete with tokenizer, for tests that need no real weights."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from embedpress.extract import torchvision_trap

WIDTH, POSITIONS = 32, 48


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def write_tokenizer(folder: Path, model_max_length: int | None = POSITIONS) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = string.ascii_lowercase + string.digits + ".,!?'é日😀"
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters)]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names_of = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    config: dict[str, Any] = {f"{kind}_token": name for kind, name in names_of.items()}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    write_json(folder / "tokenizer_config.json", config)


def build(folder: Path) -> Path:
    torchvision_trap.prepare()
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=100,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder
