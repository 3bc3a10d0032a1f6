# %% [markdown]
# # Search texts by 32 bytes each
#
# 1,500 film reviews become embeddings of 1,536 bytes; a compressor is trained on them, and an
# index keeps 32 bytes of each. Other reviews ask, and the exact neighbours say what was kept.
#
# Run it whole, `python examples/text_search.py`, or cell by cell in an editor.

# %%
from pathlib import Path

from real_data import minilm, reviews

import embedpress
from embedpress.autoencoder.fit import fit
from embedpress.evaluate.metrics import recall_at_k, true_neighbors
from embedpress.extract.text import TextExtractor

WORK = Path("data/examples/text-search")
EMBEDDINGS = Path("data/examples/reviews")
N_REVIEWS, N_QUERIES = 1_500, 200
EPOCHS = 20

# %% [markdown]
# ## Embed
#
# `extract_text` reads the file, runs all-MiniLM-L6-v2 and writes Parquet shards. Ids, labels and
# texts go with the vectors. Run again, it finds its work done.

# %%
base, asking = reviews(N_REVIEWS), reviews(N_QUERIES, skip=N_REVIEWS)
for file, out in ((base, EMBEDDINGS), (asking, WORK / "queries")):
    embedpress.extract_text(file, out, model=minilm(), id_column="id")
embeddings = embedpress.open_vectors(EMBEDDINGS).read().vectors
queries = embedpress.open_vectors(WORK / "queries").read().vectors
print(f"embeddings: {embeddings.shape[0]:,} x {embeddings.shape[1]}")

# %% [markdown]
# ## Train
#
# `Compressor` has scikit-learn's surface. `fit` trains it on a folder and saves it, with its ONNX
# graphs. `None` trains no latents. A seed and a number of epochs give the same codes again.

# %%
compressor = embedpress.Compressor(None, 32, epochs=EPOCHS, seed=0)
fit(EMBEDDINGS, WORK / "model", compressor)
recalls = [record["recall"] for record in compressor.history_["codes"]]
print(f"held-out recall@10: {recalls[0]:.3f} by OPQ, {max(recalls):.3f} once trained")

# %% [markdown]
# ## Compress and index
#
# From here on there is ONNX Runtime and FAISS, no torch. The rerank tier lies on disk: it reorders
# the first hits that the codes give.

# %%
embedpress.compress(EMBEDDINGS, WORK / "model", WORK / "codes")
embedpress.build_index(
    WORK / "codes", WORK / "model", WORK / "index", rerank="int8", vectors=EMBEDDINGS
)
index = embedpress.open_index(WORK / "index", WORK / "model")

# %% [markdown]
# ## What is kept
#
# recall@10 is the share of the true ten nearest, by the embeddings, among the ten that are found.

# %%
truth = true_neighbors(queries, embeddings, 10, metric="cosine")
for name, rerank in (("codes alone", False), ("codes, reranked", True)):
    hits = index.search(queries, k=10, rerank=rerank)
    print(f"recall@10, {name}: {recall_at_k(hits.rows, truth).mean():.3f}")
print(f"bytes a review: {4 * embeddings.shape[1]:,} before, {index.compressor.code_size} after")

# %% [markdown]
# ## Ask
#
# Questions go through the same model. A filter takes columns of the input.

# %%
questions = ["a heartwarming story about family", "boring plot and terrible acting"]
asked = TextExtractor(minilm()).encode(questions)
for question, found in zip(questions, index.records(index.search(asked, k=3)), strict=True):
    print(f"\n{question}")
    for hit in found:
        print(f"  {hit['score']:.3f}  {hit['label']:<8}  {hit['text']}")

hits = index.search(asked[:1], k=3, filter='label == "negative"')
print(f"\n{questions[0]}, among negative reviews")
for hit in index.records(hits)[0]:
    print(f"  {hit['score']:.3f}  {hit['label']:<8}  {hit['text']}")
