"""The page in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, set_scheme, set_size
from live import Live, live, wait_until

from embedpress.serve.settings import Settings

ATTACK = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def visit(page: Any, url: str) -> None:
    page.get("about:blank")
    page.get(url)
    wait_until(lambda: page.execute_script("return document.documentElement.dataset.state"))


def element(page: Any, selector: str) -> Any:
    return page.find_element("css selector", selector)


def hits(page: Any) -> list[str]:
    return [hit.text for hit in page.find_elements("css selector", "#hits .words, #hits img")]


def keys(page: Any, *pressed: str) -> None:
    page.switch_to.active_element.send_keys(*pressed)


def ask(page: Any, text: str) -> None:
    from selenium.webdriver.common.keys import Keys

    field = element(page, "#query")
    field.clear()
    field.send_keys(text, Keys.ENTER)
    wait_until(lambda: "nearest of" in element(page, "#status").text)
    wait_until(lambda: element(page, "#hits").get_attribute("aria-busy") == "false")


def asked(server: Live, text: str) -> list[str]:
    """What the server finds by itself."""
    with server.client() as http:
        found = http.post("/v1/search", json={"text": text}).json()["hits"][0]
    assert len(found) == 10
    return [hit["text"] for hit in found]


def lit(page: Any) -> int:
    """Pixels of the map in the colour of a hit."""
    return int(
        page.execute_script(
            """
            const canvas = document.getElementById("map");
            const glow = getComputedStyle(canvas).getPropertyValue("--glow").trim();
            const [r, g, b] = glow.match(/\\w\\w/g).map((part) => parseInt(part, 16));
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4)
              if (data[i] === r && data[i + 1] === g && data[i + 2] === b) count++;
            return count;
            """
        )
    )


def test_a_search_shows_hits_scores_sizes_and_lights_the_map(
    page: Any, server: Live, texts: list[str]
) -> None:
    visit(page, server.url)
    assert element(page, "#count").text == "300"
    assert element(page, "#each").text.startswith("128 →")
    assert element(page, "#saved").text.startswith("38.4 kB → 3")
    assert "300 latents" in element(page, "#caption").text
    assert lit(page) == 0
    ask(page, texts[5])
    assert hits(page) == asked(server, texts[5])
    assert "subject: " in element(page, "#hits .about").text
    assert float(element(page, "#hits .score").text) > 0
    wait_until(lambda: lit(page) > 200)
    assert "10 hits are lit" in element(page, "#map").get_attribute("aria-label")


def test_the_keyboard_is_enough(page: Any, server: Live, texts: list[str]) -> None:
    from selenium.webdriver.common.keys import Keys

    visit(page, server.url)
    ask(page, texts[8])
    first = hits(page)
    keys(page, Keys.ARROW_DOWN)
    keys(page, Keys.ARROW_DOWN)
    assert page.switch_to.active_element.text.startswith("2")
    assert "lit" in page.switch_to.active_element.get_attribute("class")
    keys(page, Keys.ENTER)
    wait_until(lambda: element(page, "#query").get_attribute("value") == first[1])
    wait_until(lambda: first[1] in hits(page) and hits(page) != first)
    page.execute_script("document.activeElement.blur()")
    element(page, "body").send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") == "query"
    keys(page, Keys.ESCAPE)
    assert hits(page) == []
    assert element(page, "#query").get_attribute("value") == ""


def test_a_filter_and_what_is_wrong_with_it(page: Any, server: Live) -> None:
    from selenium.webdriver.common.keys import Keys

    visit(page, server.url)
    element(page, "#filter").send_keys('subject == "chess"', Keys.TAB)
    ask(page, "cats")
    assert all(text.startswith("chess") for text in hits(page))
    element(page, "#filter").send_keys(" and", Keys.TAB)
    wait_until(lambda: "bad" in element(page, "#status").get_attribute("class"))
    assert "is not an expression" in element(page, "#status").text


def test_texts_are_never_html(
    page: Any, settings: Callable[..., Settings], server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedpress.index.search import SearchIndex

    real = SearchIndex.records

    def records(self: SearchIndex, found: Any) -> list[list[dict[str, Any]]]:
        return [
            [{**hit, "text": ATTACK, "subject": ATTACK, ATTACK: ATTACK} for hit in line]
            for line in real(self, found)
        ]

    monkeypatch.setattr(SearchIndex, "records", records)
    visit(page, server.url)
    ask(page, "cats")
    assert hits(page)[0] == ATTACK
    assert page.find_elements("css selector", "#hits img, #hits script") == []
    assert "owned" not in page.title


def test_a_question_in_the_address_is_asked(page: Any, server: Live, texts: list[str]) -> None:
    visit(page, f"{server.url}/#q={texts[3].replace(' ', '%20')}")
    wait_until(lambda: hits(page))
    assert hits(page) == asked(server, texts[3])


def test_it_needs_nothing_from_elsewhere_and_breaks_no_policy(page: Any, server: Live) -> None:
    page.get_log("browser")
    visit(page, server.url)
    ask(page, "cats")
    assert [entry["message"] for entry in page.get_log("browser")] == []
    asked = page.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert len(asked) > 5
    assert all(name.startswith(server.url) for name in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits_and_can_be_read(
    page: Any, server: Live, texts: list[str], scheme: str, width: int
) -> None:
    set_size(page, width, 800)
    set_scheme(page, scheme)
    visit(page, server.url)
    ask(page, texts[0])
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    # WCAG's contrast of texts with what is behind them.
    contrast = page.execute_script(
        """
        const light = (color) => {
          const part = color.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
            .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
          return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
        };
        const ground = getComputedStyle(document.body).backgroundColor;
        return ["#status", "dt", "dd", ".words", ".about", ".score", "#columns"].map((selector) => {
          const ink = getComputedStyle(document.querySelector(selector)).color;
          const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        });
        """
    )
    assert min(contrast) >= 4.5, contrast
    set_size(page, 1280, 860)


def test_every_control_has_a_name(page: Any, server: Live) -> None:
    visit(page, server.url)
    for control in page.find_elements("css selector", "input, select, button, canvas"):
        if control.is_displayed():
            assert control.accessible_name, control.get_attribute("outerHTML")


def test_it_asks_for_the_key(page: Any, settings: Callable[..., Settings]) -> None:
    with live(settings(), api_key="secret") as running:
        page.get(running.url)
        wait_until(lambda: element(page, "#key").is_displayed())
        element(page, "#key").send_keys("secret")
        element(page, "#key-box button").click()
        wait_until(lambda: element(page, "#count").text == "300")
        wait_until(lambda: page.execute_script("return document.documentElement.dataset.state"))
        ask(page, "cats")
        assert len(hits(page)) == 10
        page.execute_script("sessionStorage.clear()")


def test_without_a_map_or_an_extractor(
    page: Any, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedpress.serve.service.open_encoder", lambda *_, **__: None)
    with live(settings()) as running:
        visit(page, running.url)
        assert not element(page, "#map-box").is_displayed()
        assert not element(page, "#query").is_enabled()
        assert "--with-extractor" in element(page, "#status").text


def test_the_files_are_small() -> None:
    import embedpress.serve.app as app

    assert sum(file.stat().st_size for file in Path(app.PAGE).iterdir()) < 60_000
