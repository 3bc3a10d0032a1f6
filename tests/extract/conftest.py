from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_bert


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from more, and lose much where the processors are shared."""
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bert_copy(bert: Path, tmp_path: Path) -> Path:
    """The same, for a test to spoil."""
    return Path(shutil.copytree(bert, tmp_path / "copy"))


@pytest.fixture
def sentence_bert(bert_copy: Path) -> Path:
    """The same as sentence-transformers writes it: cls pooling, normalised, 16 tokens."""
    tiny_bert.write_json(
        bert_copy / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.m.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Norm", "type": "sentence_transformers.m.Normalize"},
        ],
    )
    (bert_copy / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    tiny_bert.write_json(bert_copy / "1_Pooling" / "config.json", pooling)
    (bert_copy / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    return bert_copy
