"""Other people's programs, each given an artifact's folder as it is: {version, chats: [{text, prompt, ids}]}."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .browser import in_chromium
from .cases import TOKENS, Case

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
Answers = dict[str, Any]


def node(script: str, job: Any, *arguments: str, seconds: int = 600) -> Any:
    """What a Node script of this folder prints for `job`, both as JSON."""
    done = subprocess.run(["node", HERE / script, *arguments], input=json.dumps(job), capture_output=True, text=True,
                          timeout=seconds)
    assert done.returncode == 0, f"node {script}: {done.stderr[-3000:]}"
    return json.loads(done.stdout)


def transformers_job(folder: Path, chats: list[Any], texts: list[str]) -> dict[str, Any]:
    return {"models": str(folder.parent), "name": folder.name, "chats": chats, "texts": texts, "tokens": TOKENS}


def transformers_node(case: Case) -> Answers:
    answers: Answers = node("transformers_node.mjs", transformers_job(case.folder, case.chats, []),
                            "@huggingface/transformers")
    return answers


def transformers_3_node(case: Case) -> Answers:
    answers: Answers = node("transformers_node.mjs", transformers_job(case.folder, case.chats, []), "transformers-3")
    return answers


def transformers_chromium(case: Case) -> Answers:
    return in_chromium(case.folder.parent, transformers_job(case.folder, case.chats, []))


def node_llama_cpp(case: Case) -> Answers:
    job = {"file": str(case.artifact.model_path), "chats": case.chats, "tokens": TOKENS}
    answers: Answers = node("llama_node.mjs", job)
    return answers


def onnxruntime_genai(case: Case) -> Answers:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime_genai as genai

    model = genai.Model(str(case.folder))
    tokenizer = genai.Tokenizer(model)
    found = []
    for chat in case.chats:
        text = tokenizer.apply_chat_template(json.dumps(chat), add_generation_prompt=True)
        prompt = [int(token) for token in tokenizer.encode(text)]
        parameters = genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(prompt) + TOKENS, do_sample=False)
        generator = genai.Generator(model, parameters)
        generator.append_tokens(np.array(prompt, np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        found.append({"text": text, "prompt": prompt,
                      "ids": [int(token) for token in generator.get_sequence(0)[len(prompt):]]})
    return {"version": genai.__version__, "chats": found}


def llama_cpp_python(case: Case) -> Answers:
    """Its own chat completion, template and stop ids from the file; ids are what it evaluated, all but its last."""
    import llama_cpp

    model = llama_cpp.Llama(str(case.artifact.model_path), n_ctx=512, n_threads=1, verbose=False)
    found = []
    for chat in case.chats:
        model.reset()
        answer = model.create_chat_completion(chat, temperature=0.0, max_tokens=TOKENS + 1, repeat_penalty=1.0)
        evaluated = [int(token) for token in model.input_ids[:model.n_tokens]]
        length = answer["usage"]["prompt_tokens"]
        found.append({"prompt": evaluated[:length], "ids": evaluated[length:]})
    model.close()
    return {"version": version("llama-cpp-python"), "chats": found}


ONNX = {"onnxruntime-genai": onnxruntime_genai, "transformers.js in Node": transformers_node,
        "transformers.js in Chromium": transformers_chromium}
OLDER = {"transformers.js 3 in Node": transformers_3_node}
GGUF = {"llama-cpp-python": llama_cpp_python, "node-llama-cpp": node_llama_cpp}
ALL = ONNX | OLDER | GGUF
