"""The page in headless Chromium: it lists the model, sends, streams the answer and stops one."""

from __future__ import annotations

import queue
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from edgestill.runtime import load
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server import application
from edgestill.runtime.server.work_queue import Station
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..serving import running

QUESTION = "turn off the kitchen light"
DRIVER = """<script nonce="{nonce}">
  const wait = async wanted => { while (!wanted()) await new Promise(done => setTimeout(done, 20)); };
  addEventListener("load", async () => {
    await wait(() => model.options.length);
    text.value = QUESTION;
    form.requestSubmit();
    await wait(() => running);
    await wait(() => !running);
    const first = [...messages], note = talk.querySelector("small").textContent;
    text.value = QUESTION;
    form.requestSubmit();
    await wait(() => running && talk.querySelectorAll("p").length === 4);
    stop.click();
    await wait(() => !running);
    const end = [...talk.querySelectorAll("small")].at(-1).textContent;
    await fetch("result", { method: "POST", body: JSON.stringify({ first, note, end }) });
  });
</script></html>"""


def test_the_page_talks_and_stops(packed_llama: dict[str, Path], tmp_path: Path,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    page = tmp_path / "page.html"
    content = application._PAGE.read_text(encoding="utf-8")
    page.write_text(content.replace("</html>", DRIVER.replace("QUESTION", repr(QUESTION))), encoding="utf-8")
    monkeypatch.setattr(application, "_PAGE", page)
    with load(packed_llama["gguf"], threads=1) as model:
        wanted = model.chat([{"role": "user", "content": QUESTION}]).text
    station = Station("tiny", load_streams(packed_llama["gguf"], 1, 1), 2)
    engine: Any = station.model.engine
    fast = engine.decode
    with running([station]) as served:
        said = 0

        def slow(token: int) -> Any:
            nonlocal said
            said += 1
            time.sleep(0.2 if said > 30 else 0)  # the second answer, so that there is something to stop
            return fast(token)

        engine.decode = slow
        results: queue.Queue[dict[str, Any]] = queue.Queue()

        async def result(request: Request) -> Response:
            results.put(await request.json())
            return Response()

        served.service.application.routes.append(Route("/result", result, methods=["POST"]))
        process = subprocess.Popen(
            [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
             f"http://127.0.0.1:{served.port}/"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found = results.get(timeout=60)
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert [message["content"] for message in found["first"]] == [QUESTION, wanted]
    assert " tokens, first after " in found["note"]
    assert found["end"] == "stopped"
