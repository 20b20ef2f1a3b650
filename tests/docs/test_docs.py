"""The documentation, held to the code: links lead somewhere, commands exist, Python blocks run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec
import pytest

from feature_assets.groups.flights import catalog as flights_catalog
from featurestore.cli.main import main as command
from featurestore.declaration import tier
from featurestore.serving.asked import ONLINE_REQUEST, PUSH_REQUEST, parse
from featurestore.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.+?)\s*$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [body for tag, body in FENCE.findall(page.read_text()) if tag == language]


def console_lines(program: str) -> list[tuple[str, list[str]]]:
    """Every console line of the documentation that calls a program: the page, and its words."""
    typed = [(str(page.relative_to(ROOT)), line) for page in PAGES for line in _typed_lines(page)]
    calls = [(page, line) for page, line in typed if Path(line.partition(" ")[0]).name == program]
    return [(page, shlex.split(line, comments=True)[1:]) for page, line in calls]


def _typed_lines(page: Path) -> list[str]:
    """What a reader types: lines with a prompt, or every line of a block that has none."""
    typed: list[str] = []
    for block in blocks(page, "console"):
        lines = block.splitlines()
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        typed += prompted or lines
    return typed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [(target, anchor) for target, anchor in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target, _ in links if not (page.parent / target).exists()] == []
    headed = [(page.parent / target if target else page, anchor) for target, anchor in links if anchor]
    assert [f"{target}#{anchor}" for target, anchor in headed if anchor not in anchors(target)] == []


def anchors(page: Path) -> set[str]:
    """What a link can name in a page after `#`: its headings, as GitHub writes them there."""
    named = [
        re.sub(r"[^\w\- ]", "", text).lower().replace(" ", "-")
        for text in HEADING.findall(FENCE.sub("", page.read_text()))
    ]
    return {f"{name}-{named[:i].count(name)}" if name in named[:i] else name for i, name in enumerate(named)}


def test_every_make_target_shown_exists() -> None:
    shown = {word for _, words in console_lines("make") for word in words if "=" not in word}
    declared = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert shown <= declared
    assert {"demo", "test"} <= shown


def test_make_up_says_at_once_what_it_starts() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nup:")[2].splitlines()[1]
    assert recipe.startswith('\t@echo "Starting')


OURS = re.compile(r"^(benchmarks/\w+\.py|(benchmarks|examples)\.[\w.]+)$")
"""A script or module of this repository that documentation runs by `python`."""
SCRIPTS = sorted({tuple(words) for _, words in console_lines("python") if any(OURS.match(word) for word in words)})


def test_the_documentation_shows_how_to_run_benchmarks_and_the_replay() -> None:
    assert len(SCRIPTS) >= 6
    assert any("examples.flights.replay" in words for words in SCRIPTS)


@pytest.mark.parametrize("words", SCRIPTS, ids=" ".join)
def test_every_script_shown_tells_its_options_and_does_nothing_else(words: tuple[str, ...]) -> None:
    last = next(i for i, word in enumerate(words) if OURS.match(word))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONWARNINGS")}
    done = subprocess.run(
        [sys.executable, *(word for word in words[: last + 1] if word not in ("-W", "ignore")), "--help"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage:")
    options = [word.partition("=")[0] for word in words[last + 1 :] if word.startswith("-")]
    assert [option for option in options if option not in done.stdout] == []


def requests_shown() -> list[tuple[str, str, dict[str, Any]]]:
    """Every request that the documentation makes by curl with a body: the page, the path, and the body."""
    shown = []
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ ")) if line.removeprefix("$ ").startswith("curl ") else []
                if "-d" in words:
                    url = next(word for word in words if "localhost" in word)
                    shown.append((page.name, urlsplit(f"//{url}").path, json.loads(words[words.index("-d") + 1])))
    return shown


def test_every_request_shown_is_one_that_the_server_takes() -> None:
    shown = requests_shown()
    assert "README.md" in {page for page, _, _ in shown}
    decoders = {"/get-online-features": ONLINE_REQUEST, "/push": PUSH_REQUEST}
    for page, path, body in shown:
        decoder: msgspec.json.Decoder[Any] = decoders[path]
        parsed = parse(json.dumps(body).encode(), decoder)
        assert set(body) <= set(parsed.__struct_fields__), f"{page}: a field that the server passes over"


def test_the_readme_asks_for_a_service_that_exists_by_all_of_its_keys() -> None:
    services = {service.name: service for service in flights_catalog.services}
    for page, path, body in requests_shown():
        if page == "README.md" and path == "/get-online-features":
            groups = {reference.partition(":")[0] for reference in services[body["feature_service"]].references}
            keys = {key for name in groups for key in flights_catalog.group(name).keys}
            assert set(body["entities"]) == keys


def test_the_tiers_that_groups_are_served_from_by_default_are_those_of_the_table() -> None:
    table = (ROOT / "docs" / "online.md").read_text().partition("| freshness tier |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    shown = {name.strip("` "): row[2:] for row in rows for name in row[0].split(",")}
    assert set(shown) == {"REAL_TIME", "NEAR_REAL_TIME", "HOURLY", "DAILY", "STATIC"}
    urls = ("", "dynamodb://t")
    for name, cells in shown.items():
        group = SimpleNamespace(tiers=getattr(tier, name).online or ())
        served = [Settings.from_env({"FEATURESTORE_WARM_URL": url}).tiers_of(group) for url in urls]  # type: ignore[arg-type]
        assert [(cell.partition(" ")[0],) for cell in cells] == served, name


def test_every_command_shown_has_those_options() -> None:
    shown = console_lines("featurestore")
    assert shown
    for page, words in shown:
        _check_command(
            command, words, click.Context(command, info_name="featurestore", **command.context_settings), page
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("groups --no-such-option", "groups has no option --no-such-option"),
        ("backfill teleport --no-such-option 3", "backfill has no command 'teleport'"),
        ("--root place backfill plan --no-such-option 3", "plan has no option --no-such-option"),
        ("online status --json=1 --no-such-option", "status has no option --no-such-option"),
    ],
)
def test_a_command_that_is_not_there_would_be_seen_in_a_page(words: str, said: str) -> None:
    context = click.Context(command, info_name="featurestore", **command.context_settings)
    with pytest.raises(AssertionError, match=said):
        _check_command(command, words.split(), context, "page.md")


def _check_command(one: click.Command, words: list[str], context: click.Context, page: str) -> None:
    """Refuse options and commands that are not there, at whatever depth."""
    left = _options_checked(one, words, context, page)
    if not left:
        return
    assert isinstance(one, click.Group)
    sub = one.get_command(context, left[0])
    assert sub is not None, f"{page}: {context.info_name} has no command {left[0]!r}"
    _check_command(sub, left[1:], click.Context(sub, info_name=left[0], parent=context), page)


def _options_checked(one: click.Command, words: list[str], context: click.Context, page: str) -> list[str]:
    """Refuse options that a command lacks; of a group, stop at the first word that is none."""
    options = {
        name: parameter
        for parameter in one.get_params(context)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    left = list(words)
    while left:
        if not left[0].startswith("-"):
            if isinstance(one, click.Group):
                return left
            left.pop(0)
            continue
        word = left.pop(0).partition("=")[0]
        assert word in options, f"{page}: {context.info_name} has no option {word}"
        parameter = options[word]
        if left and isinstance(parameter, click.Option) and not parameter.is_flag:
            left.pop(0)
    return left


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_python_block_runs(page: Path) -> None:
    """The blocks of a page run one after the other, as a reader would type them."""
    code = "\n".join(blocks(page, "python"))
    exec(compile(code, str(page), "exec"), {"__name__": "docs"})  # noqa: S102 - the documentation is ours


def test_no_page_or_module_names_a_registry_host_or_a_path_of_one_machine() -> None:
    hosts = "|".join(["py" + "pi", "python" + "hosted", "npm" + "js"])
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    named = [name for name in listed if (ROOT / name).suffix not in {".png", ".parquet"} and (ROOT / name).exists()]
    bad = [name for name in named if re.search(rf"://[^/\s]*({hosts})", (ROOT / name).read_text(errors="replace"))]
    assert bad == []
