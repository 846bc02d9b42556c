"""What a browser makes of the page of a run; collected where chromium is installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from support.drawn_runs import NOW, at, defined, done, snapshot
from support.waiting import PATIENCE_S
from workflow_store import RunSnapshot, TaskStatus
from workflow_store.rendering.escaping import escape_invisible, pretty_json
from workflow_store.rendering.html import page
from workflow_store.rendering.timeline import timeline
from workflow_store.testing import a_step

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "'><svg onload=alert(3)>",
    "</style><style>*{display:none}</style>",
    "</script></title></pre></details></textarea><h1>broken out</h1>",
    "javascript:alert(4)",
    '<a href="javascript:alert(5)">x</a>',
    '<iframe src="https://example.com/"></iframe>',
    "<!-- <![CDATA[ ]]> -->",
    "{{7*7}} {% raw %} ${7*7} #{7*7}",
    "&lt;b&gt; &#x41; &amp;",
    "url(https://example.com/) ; } body { display: none",
    "\u202eesrever\u202c \u2066isolate\u2069 \u200b\u200d\ufeff",
    "tab\tnewline\nreturn\rescape\x1b[31m",
]
HOSTILE_TEXT = [*HOSTILE, "NUL \0", "lone \ud800 surrogates \udfff", "\uffff"]


def hostile_run() -> RunSnapshot:
    """Make a run that holds each hostile text wherever it may."""
    steps = [
        a_step(
            each,
            status=list(TaskStatus)[index % len(TaskStatus)],
            result={text: [text] for text in HOSTILE_TEXT},
            error="\n".join([each, *HOSTILE_TEXT]),
            started_at=at(index),
            wait_task_id=each,
        )
        for index, each in enumerate(HOSTILE)
    ]
    definition = {
        "steps": [
            {"id": each, "depends_on": HOSTILE_TEXT[index + 1 :: 4]}
            for index, each in enumerate(HOSTILE_TEXT)
        ],
        **{text: text for text in HOSTILE_TEXT},
    }
    every = " ".join(HOSTILE)
    return snapshot(
        *steps,
        run_task_id=every, agent_id=every, thread_id=every, user_id=every,
        workspace_id=every, entry_point=every,
        definition=definition, input=HOSTILE_TEXT, context={"all": HOSTILE_TEXT},
    )  # fmt: skip


def ordinary_run() -> RunSnapshot:
    """Make a run with a step in each status."""
    return snapshot(
        done("plan", 0, 10, result={"queries": 5}),
        a_step(
            "search", status="failed", started_at=at(10), completed_at=at(30), error="no answer"
        ),
        done("large", 10, 20, result=["x" * 500_000, "the end"]),
        a_step("write", status="running", started_at=at(30)),
        a_step("approve", status="input_required", started_at=at(40), wait_task_id="task"),
        a_step("stop", status="canceled", started_at=at(50), completed_at=at(51)),
        a_step("send", status="pending"),
        definition=defined(
            plan=[], search=["plan"], large=["plan"], write=["large"], approve=["write"],
            stop=["write"], send=["approve", "stop", "ghost"], file=["send"],
        ),
    )  # fmt: skip


@dataclass
class Tab:
    """A page that is shown, and what it did that it should not."""

    page: Page
    faults: list[str] = field(default_factory=list)


Show = Literal["light", "dark"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS, timeout=PATIENCE_S * 1000
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def shown(
    browser: Browser, folder: Path, run: RunSnapshot, *, width: int = 1000, scheme: Show = "light"
) -> AsyncIterator[Tab]:
    """Show the page of a run, which must ask for nothing and have nothing to complain of."""
    file = folder / "page.html"
    file.write_text(page(run, NOW), encoding="utf-8")
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    context.set_default_timeout(PATIENCE_S * 1000)
    tab = Tab(await context.new_page())
    tab.page.on("console", lambda message: tab.faults.append(f"console: {message.text}"))
    tab.page.on("pageerror", lambda error: tab.faults.append(f"error: {error}"))
    tab.page.on("dialog", lambda dialog: tab.faults.append(f"dialog: {dialog.message}"))
    context.on("request", lambda request: tab.faults.append(f"request: {request.url}"))
    await tab.page.goto(file.as_uri())
    assert tab.faults == [f"request: {file.as_uri()}"]
    tab.faults.clear()
    try:
        yield tab
        assert tab.faults == []
    finally:
        await context.close()


async def open_all(tab: Tab) -> None:
    """Open each fold, the outer ones first, as a reader does."""
    for summary in await tab.page.locator("summary").all():
        if not await summary.evaluate("each => each.parentElement.open"):
            await summary.click()


# -- hostile states --------------------------------------------------------------------


async def test_a_hostile_state_is_text(browser: Browser, tmp_path: Path) -> None:
    """Nothing of it runs, asks for anything or becomes an element, folded or open."""
    run = hostile_run()
    async with shown(browser, tmp_path, run) as tab:
        await open_all(tab)
        strange = await tab.page.evaluate(
            """() => [...document.querySelectorAll('*')].filter(each =>
                each.matches('script, img, iframe, object, embed, link, form, base')
                || [...each.attributes].some(({name, value}) =>
                    name.startsWith('on') || name === 'src'
                    || (name.endsWith('href') && !value.startsWith('#')))
            ).map(each => each.outerHTML)"""
        )
        assert strange == []
        assert await tab.page.locator("h1, style").count() == 2
        assert await tab.page.locator("h1").text_content() == escape_invisible(run.run.run_task_id)
        assert await tab.page.title() == escape_invisible(f"Run {run.run.run_task_id}")
        ids = await tab.page.locator(".step > summary .id").all_text_contents()
        assert ids == [escape_invisible(each) for each in HOSTILE]
        errors = await tab.page.locator(".step pre", has_text="lone").all_text_contents()
        for step, error in zip(run.steps, errors[::2], strict=True):
            assert error == escape_invisible(step.error or "", lines=True)
        results = errors[1::2]
        assert results == [pretty_json(step.result) for step in run.steps]
        titles = await tab.page.locator("svg .node title").all_text_contents()
        assert len(titles) == len(HOSTILE_TEXT)
        body = await tab.page.locator("body").inner_text()
        assert "{{7*7}} {% raw %} ${7*7} #{7*7}" in body
        assert "&lt;b&gt; &#x41; &amp;" in body
        assert body.replace("\n", "").replace("\t", "").isprintable()
        assert await tab.page.locator("body").is_visible()


async def test_the_policy_stops_what_would_run_if_it_ever_got_in(
    browser: Browser, tmp_path: Path
) -> None:
    """A second wall behind the escaping."""
    async with shown(browser, tmp_path, ordinary_run()) as tab:
        ran = await tab.page.evaluate(
            """() => {
                const script = document.createElement('script');
                script.textContent = 'window.ran = true';
                document.body.append(script);
                const text = document.createElement('i');
                text.setAttribute('onclick', 'window.ran = true');
                document.body.append(text);
                text.click();
                return window.ran === true;
            }"""
        )
        assert ran is False
        assert any("Content Security Policy" in fault for fault in tab.faults)
        tab.faults.clear()


# -- how it looks ----------------------------------------------------------------------

CONTRASTS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = colour => rgba(colour).slice(0, 3).map(each => each / 255)
        .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
    const contrast = (one, other) => {
        const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const ground = element => {
        for (let each = element; each; each = each.parentElement) {
            const style = getComputedStyle(each);
            if (rgba(style.backgroundColor)[3] === 255) return style.backgroundColor;
        }
        return 'white';
    };
    const found = [];
    for (const each of document.querySelectorAll('body *')) {
        const style = getComputedStyle(each);
        const said = each.className.baseVal ?? each.className;
        if (each.matches('svg text')) {
            const box = getComputedStyle(each.parentElement.querySelector('rect'));
            found.push(['text of ' + each.textContent, contrast(style.fill, box.fill), 4.5]);
            found.push(['border of ' + each.textContent, contrast(box.stroke, ground(each)), 3]);
        } else if (each.matches('.bar:not(.open), .share span')) {
            found.push([said, contrast(style.backgroundColor, ground(each.parentElement)), 3]);
        } else if ([...each.childNodes].some(node => node.nodeType === 3 && node.data.trim())
                   && !each.closest('svg')) {
            found.push([each.textContent.slice(0, 40), contrast(style.color, ground(each)), 4.5]);
        }
    }
    return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_and_bars_stand_out_from_what_is_behind_them(
    browser: Browser, tmp_path: Path, scheme: Show
) -> None:
    """By WCAG's level AA: 4.5 to 1 for text, 3 to 1 for what is drawn."""
    async with shown(browser, tmp_path, ordinary_run(), scheme=scheme) as tab:
        await open_all(tab)
        contrasts = await tab.page.evaluate(CONTRASTS)
        assert len(contrasts) > 100
        assert [each for each in contrasts if each[1] < each[2]] == []


async def colours(tab: Tab) -> dict[str, Any]:
    found: dict[str, Any] = await tab.page.evaluate(
        """() => ({
            ground: getComputedStyle(document.body).backgroundColor,
            text: getComputedStyle(document.body).color,
            bar: getComputedStyle(document.querySelector('.bar.failed')).backgroundColor,
        })"""
    )
    return found


async def test_the_page_is_light_or_dark_as_the_readers_system(
    browser: Browser, tmp_path: Path
) -> None:
    """And light on paper, whatever the system is."""
    async with shown(browser, tmp_path, ordinary_run(), scheme="light") as tab:
        light = await colours(tab)
    async with shown(browser, tmp_path, ordinary_run(), scheme="dark") as tab:
        dark = await colours(tab)
        await tab.page.emulate_media(media="print")
        paper = await colours(tab)
    assert all(light[each] != dark[each] for each in light)
    assert paper == {**light, "ground": "rgb(255, 255, 255)"}


@pytest.mark.parametrize("width", [320, 360, 700, 1400])
@pytest.mark.parametrize("run", [ordinary_run(), hostile_run()], ids=["ordinary", "hostile"])
async def test_the_page_never_scrolls_sideways(
    browser: Browser, tmp_path: Path, width: int, run: RunSnapshot
) -> None:
    """On a phone above all; a wide graph scrolls within its box."""
    async with shown(browser, tmp_path, run, width=width) as tab:
        await open_all(tab)
        assert await tab.page.evaluate("document.documentElement.scrollWidth") == width
        graph_is_wider = await tab.page.locator(".graph").evaluate(
            "each => each.scrollWidth > each.clientWidth"
        )
        assert graph_is_wider or width > 360


async def test_bars_stand_where_their_times_are(browser: Browser, tmp_path: Path) -> None:
    """Below the ticks of the axis, on a screen and on a phone."""
    run = snapshot(done("first", 0, 50), a_step("rest", status="running", started_at=at(50)))
    for width, many in ((360, 4), (1160, 9)):
        async with shown(browser, tmp_path, run, width=width) as tab:
            (x, half), (middle, rest) = await places(tab, ".bar")
            assert [middle, half] == pytest.approx([x + half, rest], abs=1)
            marks = [mark for mark, _ in await places(tab, ".axis:visible > span")]
            ticks = timeline(run, NOW, None).ticks(many)
            assert marks == pytest.approx([x + tick.at * 2 * half for tick in ticks], abs=1)


async def places(tab: Tab, selector: str) -> list[tuple[float, float]]:
    """Give the left end and the width of each element."""
    boxes = [await each.bounding_box() for each in await tab.page.locator(selector).all()]
    return [(box["x"], box["width"]) for box in boxes if box is not None]


# -- what is folded --------------------------------------------------------------------


async def test_a_step_unfolds_what_it_gave(browser: Browser, tmp_path: Path) -> None:
    """A large result a second time, with its size beside it."""
    async with shown(browser, tmp_path, ordinary_run()) as tab:
        step = tab.page.locator(".step", has_text="large").first
        result = step.locator("pre")
        assert not await result.is_visible()
        await step.locator("> summary").click()
        assert not await result.is_visible()
        summary = step.locator(".value > summary")
        assert await summary.inner_text() == "Result 500.0 kB"
        await summary.press("Enter")
        assert await result.is_visible()
        assert (await result.inner_text()).endswith('"the end"\n]')


async def test_a_node_of_the_graph_leads_to_its_step(browser: Browser, tmp_path: Path) -> None:
    """Which opens."""
    async with shown(browser, tmp_path, ordinary_run()) as tab:
        error = tab.page.locator(".step pre", has_text="no answer")
        assert not await error.is_visible()
        await tab.page.locator(".node.failed").click()
        assert await error.is_visible()
        assert await error.evaluate("each => each.getBoundingClientRect().top < innerHeight")


async def test_paper_shows_what_is_folded(browser: Browser, tmp_path: Path) -> None:
    """All of it, and the bars keep their colours."""
    async with shown(browser, tmp_path, ordinary_run()) as tab:
        await tab.page.emulate_media(media="print")
        for value in await tab.page.locator("pre").all():
            assert await value.is_visible()
            assert await value.evaluate("each => each.scrollHeight <= each.clientHeight")
        exact = await tab.page.locator(".bar").first.evaluate(
            "each => getComputedStyle(each).printColorAdjust"
        )
        assert exact == "exact"


async def test_statuses_are_told_in_words_too(browser: Browser, tmp_path: Path) -> None:
    """To those who see no colours, and to those who hear the page."""
    async with shown(browser, tmp_path, ordinary_run()) as tab:
        heard = await tab.page.locator("main").aria_snapshot()
        for words in ("plan, completed", "search, failed", "approve, input required"):
            assert f"group: {words}" in heard.replace(" ,", ",")
        for heading in ("Timeline", "Dependencies", "Values of the run"):
            assert f'heading "{heading}" [level=2]' in heard
        assert 'group "Dependencies of the steps"' in heard
        assert "file" in heard
        assert "not written yet; after send" in heard
        assert "1 min 40 s from 2026-01-31 12:00:00 UTC" in heard
