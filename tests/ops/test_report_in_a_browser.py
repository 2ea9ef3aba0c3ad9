"""A report as a reader sees it: opened from a file, without a network, in a browser.

REPORT_PICTURE=docs/report.png makes the picture of the documents anew.
"""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.embeddings.arrays import Embeddings
from common.job.output_form import OutputForm
from common.job.records import Record
from tests.support.browser import chromium
from tests.support.devtools import Tab, browser_tab
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY
from tests.support.overflow import RARE, add_too_much_at_once
from tests.support.processes import Fleet, run_producer, running_fleet, wait_until
from tests.support.reports import HOSTILE
from tests.support.shards import write_shard

pytestmark = pytest.mark.slow

#: The letters that prevail in the proteins of each family.
FAMILIES = {"Alpha": "LAV", "Beta": "KDE", "Gamma": "GSP", "Delta": "FYI", "Epsilon": "RNQ"}
LETTERS = "LAGVSERTIDPKQNFYMHWC"

#: Rows that overflow FP16.
UNSTABLE_ROWS = (3, 90, 401)

#: The batch of which the input is damaged.
DAMAGED = 2

#: The most points of a map.
MANY = 100_000


@pytest.fixture
def fleet(sockets, tmp_path) -> Iterator[Fleet]:
    with running_fleet(sockets, f"file://{tmp_path}/store") as running:
        yield running


@pytest.fixture
def tab(tmp_path) -> Iterator[Tab]:
    chromium()
    (tmp_path / "browser").mkdir()
    with browser_tab(tmp_path / "browser") as opened:
        yield opened


def write_families(folder: Path, count: int, hostile: str | None) -> tuple[Path, Path]:
    """Write proteins of some families, and a table of these; an id and two names are hostile."""
    draw = random.Random(7)
    fasta, rows = [], ["id,family,isoelectric_point"]
    for number in range(count):
        family = draw.choice(list(FAMILIES))
        letters = draw.choices(LETTERS + FAMILIES[family] * 5, k=int(draw.lognormvariate(4.6, 0.5)))
        if number in UNSTABLE_ROWS:
            letters[2] = RARE
        bad = hostile or family
        name = f"sp|Q{number:05}|P{number}_{family.upper()}"
        name = hostile if hostile and number == 5 else name
        fasta.append(f">{name} Protein {number} of family {bad if number == 6 else family}")
        fasta.append("".join(letters))
        rows.append(f"Q{number:05},{bad if number == 7 else family},{draw.gauss(7, 1.5):.2f}")
    (folder / "proteins.fasta").write_text("\n".join(fasta) + "\n")
    (folder / "families.csv").write_text("\n".join(rows) + "\n")
    return folder / "proteins.fasta", folder / "families.csv"


def report_of_job(fleet: Fleet, folder: Path, hostile: str | None = None) -> Path:
    """Run a job of two workers in which rows are not finite and a batch fails; report it."""
    model = random_fair_esm(TINY)
    add_too_much_at_once(model)
    path = save_fair_esm(model, folder / "tiny.pt")
    fasta, table = write_families(folder, 600, hostile)
    words = ("submit", fasta, "--model", path, "--precision=fp16", "--batch-tokens=4000")
    job = fleet.producer(*words).stdout.strip()
    damaged = next((folder / "store" / job / "input").rglob(f"{DAMAGED:07d}.fasta"))
    damaged.write_bytes(damaged.read_bytes().replace(b"L", b"V", 1))
    named = {**fleet.environment, "VIRNUCPRO_WORKER_NAME": "host"}
    with replace(fleet, environment=named).workers(path, folder, "--precision=fp16", count=2):
        wait_until(lambda: fleet.ledger.jobs.progress(job).finished, 120)
    page = folder / f"{job}.html"
    done = fleet.producer("report", job, "-o", page, "--csv", table)
    assert done.returncode == 0, done.stderr
    return page


def chosen_count(tab: Tab) -> int:
    text = tab.run("document.querySelector('.side p').textContent")
    return int(text.split()[0].replace(",", "")) if text[0].isdigit() else 0


def middle_of_map(tab: Tab) -> tuple[float, float, float, float]:
    """Return the middle of the map, and its width and height."""
    left, top, width, height = tab.run(
        "(() => { const r = document.querySelector('.map .nsewdrag').getBoundingClientRect();"
        "return [r.left, r.top, r.width, r.height]; })()"
    )
    return left + width / 2, top + height / 2, width, height


def lasso(tab: Tab, share: float) -> None:
    """Draw a rectangle around the middle of the map."""
    tab.run(
        "document.querySelector('.map [data-val=lasso]')"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    x, y, width, height = middle_of_map(tab)
    a, b = share * width / 2, share * height / 2
    tab.drag(*[(x + i * a, y + j * b) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))])


def saved_ids(tab: Tab, folder: Path) -> list[str]:
    tab.run("document.getElementById('save').click()")
    wait_until(lambda: any(folder.glob("*-ids.txt")), 30)
    [file] = folder.glob("*-ids.txt")
    return file.read_text().splitlines()


def test_a_job_of_several_workers_with_instabilities_and_hostile_names(fleet, tab, tmp_path):
    page = report_of_job(fleet, tmp_path, HOSTILE)
    tab.open(page)
    text = tab.run("document.body.innerText")
    assert tab.errors() == []
    assert tab.requests() == [page.as_uri()]
    assert tab.run("document.title") == f"Report of {page.stem}"
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert "Not all is embedded" in text
    for expected in ("selective_fp32", "failed", "retry", "Throughput by worker"):
        assert expected in text, expected
    assert len(tab.run("[...document.querySelectorAll('.legend span')].map(s => s.textContent)"))
    assert HOSTILE in tab.run("document.querySelector('.legend').textContent")
    drawn = tab.run("document.querySelector('.map .plot').data[0].x.length")
    tab.run("(s => { s.value = '</script>'; s.onchange(); })(document.getElementById('search'))")
    assert chosen_count(tab) == 1
    assert saved_ids(tab, tmp_path / "browser") == [HOSTILE]
    tab.run("document.querySelectorAll('.actions button')[1].click()")
    assert chosen_count(tab) == 0
    tab.run("document.querySelector('.legend button').click()")
    family = chosen_count(tab)
    assert 0 < family < drawn
    tab.run("document.querySelectorAll('.actions button')[1].click()")
    tab.resize(800, 1000)
    tab.until("document.documentElement.scrollWidth <= 800")


def test_the_picture_of_the_documents(fleet, tab, tmp_path):
    picture = os.environ.get("REPORT_PICTURE")
    if picture is None:
        pytest.skip("makes a picture where REPORT_PICTURE names it")
    tab.open(report_of_job(fleet, tmp_path), height=1900)
    time.sleep(1)
    tab.picture(Path(picture).absolute())


def write_many(folder: Path) -> Path:
    """Write a file of many embeddings, in groups."""
    draw, form, dim = np.random.default_rng(1), OutputForm(max_residues=1022), 16
    groups = draw.normal(size=(12, dim)) * np.linspace(4, 0.2, dim)
    vectors = groups[draw.integers(0, 12, MANY)] + draw.normal(size=(MANY, dim)) * 0.8
    lengths = draw.integers(30, 1022, MANY).tolist()
    records = [
        Record(k, f"sp|Q{k:06}|PROTEIN_{k} Some protein of a virus", "M" * length)
        for k, length in enumerate(lengths)
    ]
    pooled = {"mean": vectors.astype(np.float32)}
    part = Embeddings.of_records(records, form, precision="fp16", pooled=pooled, residues=None)
    return write_shard(folder / "many.h5", form, dim, part, model="m", dim=dim, layers=[6])


def test_a_hundred_thousand_points_are_drawn_moved_and_selected(tab, tmp_path):
    page = tmp_path / "many.html"
    done = run_producer("report", write_many(tmp_path), "-o", page)
    assert done.returncode == 0, done.stderr
    tab.open(page)
    ready = tab.run("performance.now()")
    assert tab.errors() == []
    assert tab.run("document.querySelector('.map .plot').data[0].type") == "scattergl"
    assert tab.run("document.querySelector('.map .plot').data[0].x.length") == MANY
    assert coloured_pixels(tab) > 1000

    x, y, _, _ = middle_of_map(tab)
    tab.run(
        "window.times = []; (function tick(t) { times.push(t); requestAnimationFrame(tick); })()"
    )
    before = tab.run("document.querySelector('.map .plot').layout.xaxis.range")
    tab.drag((x, y), *((x + 4 * k, y + 2 * k) for k in range(30)))
    assert tab.run("document.querySelector('.map .plot').layout.xaxis.range") != before
    frames = np.diff(tab.run("times.filter(Boolean)"))
    lasso(tab, 0.5)
    count = chosen_count(tab)
    assert 0 < count < MANY
    ids = saved_ids(tab, tmp_path / "browser")
    assert len(set(ids)) == count
    assert all(id_.startswith("sp|Q") for id_ in ids)
    print(  # noqa: T201
        f"{MANY:,} points: a page of {page.stat().st_size / 1e6:.1f} MB, ready after "
        f"{ready / 1000:.1f} s; {np.median(frames):.0f} ms for a frame while the map is moved"
    )


def coloured_pixels(tab: Tab) -> int:
    """Return how many pixels of the map have a colour, in a picture of it."""
    return tab.run("""(async () => {
      const image = new Image();
      image.src = await Plotly.toImage(document.querySelector('.map .plot'), { format: 'png' });
      await image.decode();
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [image.width, image.height];
      const context = canvas.getContext('2d');
      context.drawImage(image, 0, 0);
      const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let k = 0; k < data.length; k += 4) {
        const [red, green, blue, alpha] = data.slice(k, k + 4);
        count += alpha > 0 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60;
      }
      return count;
    })()""")
