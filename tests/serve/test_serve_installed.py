"""What `pip install 'embedpress[serve]'` alone can do with a compressor trained elsewhere."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest
from clean_install import ROOT, clean_python
from live import post, wait_until


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_in_a_clean_environment(
    index: Path, model: Path, map_folder: Path, texts: list[str], http: httpx.Client, tmp_path: Path
) -> None:
    same_versions = ("numpy", "onnxruntime", "faiss-cpu", "tokenizers")
    python, clean = clean_python(tmp_path, f"{ROOT}[serve]", same_versions)
    options = ["-m", model, "--map", map_folder, "--port", 0, "--num-threads", 1, "--json"]
    process = subprocess.Popen(
        [str(python.with_name("embedpress")), "serve", str(index), *map(str, options)],
        stdout=subprocess.PIPE,
        text=True,
        env=clean,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as there:
            wait_until(lambda: there.get("/ready").status_code == 200, 60)
            assert "embedpress" in there.get("/").text
            for path, body in (
                ("/v1/compress", {"text": texts[:20]}),
                ("/v1/embeddings", {"model": "glosses", "input": texts[:20]}),
                ("/v1/search", {"text": texts[:5], "filter": "words > 3"}),
            ):
                found, expected = (post(one, path, body).json() for one in (there, http))
                found.pop("seconds", None)
                expected.pop("seconds", None)
                assert found == expected
    finally:
        process.terminate()
        assert process.wait(60) == 0
