from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from raymill.evaluation.axes import axes_of
from raymill.evaluation.report import ReportData, render
from raymill.evaluation.search_report import SearchData, render_search
from raymill.evaluation.words import findings, summary

from . import samples

KINDS = ["refused", "passed", "numbers", "pictures"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which(
    "google-chrome"
)
VOID = {"meta", "br", "link", "img", "hr", "input"}


@cache
def sample(kind: str) -> ReportData:
    data: ReportData = getattr(samples, kind)()
    return data


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps ids, links, and what would be fetched."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.labels: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [given["href"] or ""] if "href" in given else []
        self.fetched += [tag] if "src" in given or tag in ("script", "link", "iframe") else []
        if tag == "svg":
            self.labels.append(given.get("aria-label") or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag


# Balanced HTML, unique ids, links that lead somewhere in the page, and nothing from outside.
@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_whole(kind: str) -> None:
    html = render(sample(kind))
    page = Page(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {"verdict", "result", "search", "learning", "errors", "data", "lineage"} <= {*page.ids}
    assert all(link.removeprefix("#") in page.ids for link in page.links)
    assert page.fetched == []
    assert not re.search(r"https?://|@import|url\(", html)
    assert all(page.labels)
    assert not re.search(r"\bnan\b|\binf\b|None", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))


def test_values_are_escaped() -> None:
    html = render(sample("refused"))
    assert "cards &lt;1&gt; version 3" in html and "cards <1>" not in html
    assert "<b>blue</b>" not in html


# Both themes have a value for every colour that a chart or the page uses.
def test_both_themes_are_complete() -> None:
    html = render(sample("passed"))
    light, dark = re.findall(r":root \{(.*?)\}", html, flags=re.DOTALL)[:2]
    names = [set(re.findall(r"(--[\w-]+):", block)) for block in (light, dark)]
    assert names[0] == names[1]
    used = set(re.findall(r"var\((--[\w-]+)\)", html)) - {"--c", "--a"}
    assert used <= names[0]


def test_a_refusal_is_said_with_its_reasons() -> None:
    html = render(sample("refused"))
    assert "Refused by 2 of 4 gates" in html
    assert "beats: boosting" in html and "is worse than boosting" in html


def test_passing_is_said() -> None:
    assert "Passed its gate" in render(sample("passed"))
    assert "No gate was asked" in render(replace(sample("passed"), verdicts=[]))


# A better baseline is told in plain words: by how much, how surely, and what to try.
def test_a_better_baseline_is_told() -> None:
    evaluation = sample("refused").evaluation
    found = findings(evaluation, "mlp")
    assert [f.title for f in found] == ["Scikit-learn's gradient boosting is better than this model"]
    gap = evaluation.rivals["boosting"].difference["roc_auc"]
    assert f"{abs(gap.value):.4f} above" in found[0].text
    assert f"between {abs(gap.high):.4f} and {abs(gap.low):.4f}" in found[0].text
    assert "chance does not explain it" in found[0].text and len(found[0].tries) >= 3
    html = render(sample("refused"))
    assert found[0].tries[0] in html


def test_a_better_model_is_told() -> None:
    evaluation = sample("passed").evaluation
    assert findings(evaluation, "mlp") == []
    assert "beats a constant answer" in summary(evaluation)


# A search beyond the leaderboard says how many trials it leaves out.
def test_the_leaderboard_tells_what_it_leaves_out() -> None:
    data = sample("passed")
    assert "The best 12 of 15" in render(data)
    assert "the loss became infinite at epoch 2" in render(data)


# The search stands alone too, with the front of two objectives, each GPU's lane and every field.
def test_the_search_has_a_page_of_its_own() -> None:
    trials = samples._trials(rising=True)
    data = samples.search("average_precision", trials, front=[0, 3], rule="knee",
                          objectives=["average_precision", "p99_latency_ms"])
    html = render_search("cards <2>", data)
    page = Page(html)
    assert page.open == [] and page.fetched == [] and "cards &lt;2&gt;" in html
    assert {"average_precision against p99_latency_ms", "timeline of the trials",
            "parallel coordinates", "average precision by training.lr",
            "average precision by training.lr and model.dropout"} <= {*page.labels}
    assert "GPU 0" in html and "GPU 1" in html
    assert "Widen it, high: 0.046." in html and "What mattered below mlp" in html


# A search of one trial has nothing to compare, and a page all the same.
def test_a_search_of_one_trial_has_a_page() -> None:
    page = Page(render_search("x", SearchData("rmse", samples._trials(rising=False)[:1])))
    assert page.open == [] and "search" in page.ids


# Numbers lie by their range, choices by their place, and what is not on an axis nowhere.
def test_axes_place_values() -> None:
    trials = [{"params": {"lr": 1e-3, "kind": "a", "same": 1}},
              {"params": {"lr": 1e-1, "kind": None, "same": 1}}]
    lr, kind = axes_of(trials, {"lr": {"low": 1e-3, "high": 1e-1, "log": True}})
    assert lr.at(1e-2) == pytest.approx(0.5) and lr.at("x") is None and lr.at(-1) is None
    assert [text for _, text in lr.marks()] == ["0.001", "0.01", "0.1"]
    assert kind.at("a") == 0.25 and kind.at(None) == 0.75 and kind.at("b") is None


# Without a search, a history, a profile or any rival there is still a page.
def test_the_least_report() -> None:
    data = sample("passed")
    bare = ReportData("m", "", replace(data.evaluation, rivals={}), [])
    page = Page(render(bare))
    assert not {"search", "learning", "data"} & {*page.ids}


def look(html: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    safe = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", f"--user-data-dir={html.parent / 'profile'}"]
    return subprocess.run([CHROMIUM, *safe, *flags, html.as_uri()], capture_output=True, text=True,
                          timeout=120, check=True)


# In a real browser: laid out without overflow at two widths, dark when the reader is, no error.
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (500, False)])
def test_in_a_browser(tmp_path: Path, width: int, dark: bool) -> None:
    probe = (
        "<script>addEventListener('load',()=>{const r=document.documentElement;"
        "const s=[...document.querySelectorAll('svg.chart')].map(e=>e.getBoundingClientRect());"
        "document.body.dataset.probe=JSON.stringify({wide:r.scrollWidth-r.clientWidth,"
        "charts:s.length,flat:s.filter(b=>b.width<40||b.height<20).length,"
        "paper:getComputedStyle(document.body).backgroundColor})})</script></body>"
    )
    html = re.sub(r"<meta http-equiv.*?>", "", render(sample("refused"))).replace("</body>", probe)
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    seen = look(path, f"--window-size={width},2000", theme, "--dump-dom").stdout
    found = re.search(r'data-probe="(.*?)"', seen)
    assert found is not None
    probed = found[1].replace("&quot;", '"')
    paper = "rgb(16, 19, 23)" if dark else "rgb(251, 251, 249)"
    charts = html.count("<svg class=")
    assert probed == f'{{"wide":0,"charts":{charts},"flat":0,"paper":"{paper}"}}'


# The page as it is delivered runs no script and loads nothing, and a picture of it is not blank.
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_picture_of_the_page(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "report.html"
    path.write_text(render(sample("numbers")), encoding="utf-8")
    seen = look(path, "--window-size=1100,1600", f"--screenshot={tmp_path / 'page.png'}",
                "--enable-logging=stderr", "--v=0")
    assert "Refused to" not in seen.stderr and "CONSOLE" not in seen.stderr
    colours = Image.open(tmp_path / "page.png").convert("RGB").getcolors(10**6)
    assert colours is not None and len(colours) > 500
