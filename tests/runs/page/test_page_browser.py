"""The page in Chromium, from disk: no request, no error, the text of `jaxlm sample`, every control by keyboard."""

import shutil

import jax
import pytest
from page_models import TEXT, TOKENIZER, make_page_models

import jaxlm
from jaxlm.cli.sample import SampleOptions, sample_text
from jaxlm.runs.page.build import build_page
from jaxlm.runs.page.describe import PageModel
from jaxlm.utils.terminal import make_console

pytestmark = pytest.mark.slow
PROMPT = "to be, </script> שלום"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_page_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, models, tmp_path):
    """Return a function that opens the page; after the test, no request and no message of the console is left."""
    file, title = tmp_path / "page.html", "</title><b>The models"
    contexts, requests, messages = [], [], []

    def open_(hash_="", models=models, tokenizer=TOKENIZER, **options):
        file.write_text(build_page(models, tokenizer, title=title, prompt=PROMPT), "utf-8")
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options))
        page = contexts[-1].new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(file.as_uri() + hash_)
        wait_for(page)
        return page

    yield open_
    assert [url for url in requests if url.partition("#")[0] != file.as_uri()] == []
    assert messages == []
    for context in contexts:
        context.close()


def wait_for(page):
    """Wait until the page has drawn all tokens."""
    page.locator("#models[aria-busy='false']").wait_for()


def texts_of(page):
    wait_for(page)
    return page.locator(".text").evaluate_all("nodes => nodes.map((node) => node.textContent)")


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_the_screen(open_page, tmp_path, width, scheme):
    tokenizer = jaxlm.BPETokenizer.train(TEXT, 300)  # with long tokens
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    page = open_page("#tokens=30", make_page_models(tmp_path, tokenizer), tokenizer, **options)
    assert page.locator("h1").inner_text() == page.title() == "</title><b>The models"
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for name in ("softmax", "logits", "temperature", "top-k", "top-p", "draw"):
        page.locator(f"#step-{name}").check()
        assert page.locator(".bars tbody tr").count() >= 3 * 15
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 4}, {"top_p": 0.8}])
def test_page_writes_the_text_of_jaxlm_sample(open_page, models, options):
    settings = "".join(f"&{name.replace('_k', 'K').replace('_p', 'P')}={value}" for name, value in options.items())
    page = open_page(f"#seed=3&tokens=60{settings}")
    expected = [
        sample_text(
            SampleOptions(model.source, prompt=PROMPT, num_tokens=60, seed=3, device="cpu", **options),
            make_console(stderr=True),
        )["samples"][0]
        for model in models
    ]
    assert texts_of(page) == expected


def test_page_shows_the_text_of_bytes_that_are_not_utf8(open_page, tmp_path):
    (model,) = make_page_models(tmp_path, jaxlm.ByteTokenizer())[2:]
    page = open_page("#seed=1&tokens=60", models=[model], tokenizer=jaxlm.ByteTokenizer())
    for _ in range(20):  # a token can complete the character that the one before begins
        page.locator("#step").click()
    options = SampleOptions(model.source, prompt=PROMPT, num_tokens=80, seed=1, device="cpu")
    assert texts_of(page) == sample_text(options, make_console(stderr=True))["samples"]


def test_tour_by_keyboard(open_page):
    page = open_page(reduced_motion="reduce")
    press = page.keyboard.press

    def tab_to(selector):
        for _ in range(60):
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            press("Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("#prompt")
    press("Control+a")
    page.keyboard.type("be to")
    tab_to("#seed")
    press("Control+a")
    page.keyboard.type("7")
    tab_to("#topK")
    page.keyboard.type("5")
    tab_to("#step")
    for _ in range(3):
        press("Enter")
        wait_for(page)
    assert page.locator("#live").inner_text().startswith("Token 3. counts: ")
    assert page.locator(".drawn").count() == 9
    tab_to("#run")
    press("Space")
    wait_for(page)
    assert page.locator("#live").inner_text().startswith("Token 103. ")
    tab_to("#back")
    press("Space")
    assert [len(text) for text in texts_of(page)] == [5 + 102] * 3
    tab_to("#at")
    press("ArrowLeft")
    assert page.locator("#at-text").inner_text() == "draw 102"
    press("Home")
    assert page.locator("#at-text").inner_text() == "typed token 1 of 5"
    assert page.locator(".selected").all_inner_texts() == ["b"] * 3
    tab_to("#steps input")
    press("ArrowLeft")
    assert page.locator("#step-softmax").is_checked()
    tab_to(".text")  # scrolls by keyboard
    tab_to("article button")
    press("Enter")
    assert page.locator("#prompt").input_value() == texts_of(page)[1] == texts_of(page)[2]
    tab_to("article summary")
    press("Enter")
    page.locator("details caption", has_text="Tokens of the counts").wait_for()
    tab_to("#token")
    page.keyboard.type("b")
    tab_to("#counts-table summary")
    press("Enter")
    page.locator("#counts-table tbody tr").nth(TOKENIZER.vocab_size - 1).wait_for()
    tab_to("#network")
    press("ArrowDown")
    assert page.locator("#neighbours tbody tr").count() == 10
    tab_to("footer summary")
    press("Enter")
    assert "--top-k 5" in page.locator("#commands").inner_text()


def test_hash_restores_the_state(open_page):
    page = open_page("#seed=3&tokens=20&at=22&step=softmax&temperature=0.5")
    texts, rows = texts_of(page), page.locator(".bars").all_inner_texts()
    page.locator("#topP").fill("0.9")
    page.locator("#topP").fill("")
    page.wait_for_function("!location.hash.includes('topP')")  # the address follows after a moment
    hash_ = page.evaluate("location.hash")
    again = open_page(hash_)
    assert (texts_of(again), again.locator(".bars").all_inner_texts()) == (texts, rows)
    assert again.locator("#at-text").inner_text() == f"draw {22 - len(PROMPT) + 1}"


@pytest.mark.parametrize(
    "hash_", ["#seed=-1&topK=0&topP=2&temperature=x&step=constructor&token=999", "#prompt=%FF€&at=9"]
)
def test_hash_with_invalid_values_does_no_harm(open_page, hash_):
    page = open_page(hash_)
    assert page.locator("#seed").input_value() == "0"
    message = 'The prompt: the models do not know the character "\ufffd"; remove it.'
    assert page.locator("#error").inner_text() == ("" if "prompt" not in hash_ else message)


def test_hash_with_a_long_prompt_is_cut_between_characters(open_page):
    prompt = "t" * 3999 + "🙂"
    assert texts_of(open_page(f"#prompt={prompt}be")) == [prompt] * 3


def test_every_input_has_a_label(open_page):
    nodes = open_page().locator("input, select, textarea")
    assert nodes.evaluate_all("nodes => nodes.filter(({ labels }) => !labels.length).map(({ id }) => id)") == []


@pytest.mark.parametrize("hash_", ["#tokens=2", "#at=1"])
def test_page_says_that_no_token_has_any_probability(open_page, hash_):
    model = jaxlm.CountsBigramLM(TOKENIZER.vocab_size, smoothing=0)
    variables = jaxlm.init(model, jax.random.key(0))
    page = open_page(hash_, models=[PageModel("empty", "empty", model, variables)])
    assert page.locator(".distribution").inner_text().endswith("No token has any probability here.")
    assert "NaN" not in page.locator("main").inner_text()


def test_new_settings_replace_the_text(open_page):
    page, fresh = open_page("#tokens=30"), open_page("#tokens=30&seed=4&prompt=not")
    page.locator("#prompt").fill("not")
    page.locator("#seed").fill("4")
    assert texts_of(page) == texts_of(fresh)


def test_click_on_a_token_shows_its_distribution(open_page):
    page = open_page("#tokens=12")
    for index in range(3):
        node = page.locator(".text").nth(index).locator(".token").nth(len(PROMPT) + 4)
        drawn = node.inner_text()
        node.click()
        chosen = page.locator("article").nth(index).locator(".chosen bdi").inner_text()
        assert chosen == drawn.replace(" ", "␣").replace("\n", "⏎")
        assert page.locator("#at-text").inner_text() == "draw 5"


def test_invalid_option_is_explained_and_changes_nothing(open_page):
    page = open_page("#tokens=5")
    texts = texts_of(page)
    page.locator("#topK").fill("0")
    assert page.locator("#error").inner_text() == "Top-k must be a whole number from 1 to 2,147,483,647, or empty."
    assert texts_of(page) == texts
    page.locator("#topK").fill("2")
    assert page.locator("#error").inner_text() == ""
