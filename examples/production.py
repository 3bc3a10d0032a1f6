# %% [markdown]
# # Production: texts to codes and hits, without torch
#
# A compressor is trained once, where torch is. What goes to production is a folder with one ONNX
# graph from tokens to codes and a tokenizer, and an index. This process never imports torch, and
# says so at the end.

# %%
import subprocess
import sys
import time
from pathlib import Path

from real_data import minilm, reviews

import embedpress
from embedpress.onnx.runtime import TextEncoder

WORK = Path("data/examples/production")
EMBEDDINGS = Path("data/examples/reviews")
N_REVIEWS = 1_500
EPOCHS = 20

# %% [markdown]
# ## Once, on the machine that trains
#
# These are commands of the shell, `embedpress extract text ...`, each a process of its own.


# %%
def run(*command: object) -> None:
    """A command of embedpress."""
    subprocess.run([sys.executable, "-m", "embedpress", *map(str, command)], check=True)


source, model = reviews(N_REVIEWS), minilm()
trained, deploy = WORK / "model", WORK / "deploy"
run("extract", "text", source, "-o", EMBEDDINGS, "--model", model, "--id-column", "id")
run("fit", EMBEDDINGS, "-o", trained, "--n-components", 0, "--epochs", EPOCHS)
run("export", trained, "-o", deploy, "--with-extractor", model)

# %% [markdown]
# ## In production: texts to codes
#
# `TextEncoder` needs onnxruntime, tokenizers and numpy. The canaries are texts and their results,
# stored by `export`: a machine that computes something else is found out here.

# %%
started = time.perf_counter()
encoder = TextEncoder(deploy)
print(f"canaries that hold: {encoder.check_canaries()}")
codes = encoder.encode(["a warm film about family", "a film without an idea"])
seconds = time.perf_counter() - started
print(f"codes: {codes.shape}, {codes.dtype}, {seconds:.1f} s after the folder was named")

# %% [markdown]
# ## A job, and an index
#
# Compression of a whole folder and the index need no torch either.

# %%
embedpress.compress(EMBEDDINGS, deploy, WORK / "codes")
embedpress.build_index(WORK / "codes", deploy, WORK / "index")
index = embedpress.open_index(WORK / "index", encoder.compressor)

# %% [markdown]
# ## A question, from text to hits
#
# The question's embedding comes from the same graph; it is never quantized.

# %%
question = "a documentary about music"
started = time.perf_counter()
hits = index.search(encoder.embed([question]), k=3)
print(f"\n{question} ({1000 * (time.perf_counter() - started):.0f} ms)")
for hit in index.records(hits)[0]:
    print(f"  {hit['score']:.3f}  {hit['text']}")

# %% [markdown]
# ## The same codes, wherever they are made
#
# Texts through the one graph give what the job gave from embeddings that torch made.

# %%
stored = embedpress.open_vectors(WORK / "codes").read()
again = encoder.encode(stored.metadata["text"].to_pylist()[:200])
same = (again == stored.vectors[:200]).mean()
print(f"\nbytes that are the same, graph and job: {same:.2%}")
assert same > 0.99
assert "torch" not in sys.modules
print("torch was never imported")
