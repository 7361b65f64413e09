// Runs the model of the folder model/ with transformers.js; nothing leaves this page.
import {
  AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, env, InterruptableStoppingCriteria, pipeline,
  TextStreamer,
} from "@huggingface/transformers";
import { settings } from "./settings.mjs";

const here = new URL(".", import.meta.url);
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = here.pathname;
env.backends.onnx.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", here).href;
// Only a page that is isolated from other origins may use threads: see README.md.
const threads = crossOriginIsolated ? Math.min(4, Math.ceil(navigator.hardwareConcurrency / 2)) : 1;
env.backends.onnx.wasm.numThreads = threads;

/** A function (text, show) → what one run took; `show` is given the answer so far. */
async function loadGenerator() {
  const tokenizer = await AutoTokenizer.from_pretrained("model");
  const model = await AutoModelForCausalLM.from_pretrained("model", { device: settings.device });
  const messages = settings.system ? [{ role: "system", content: settings.system }] : [];
  return async (text, show) => {
    const started = performance.now();
    const prompt = settings.chat
      ? tokenizer.apply_chat_template([...messages, { role: "user", content: text }],
                                      { tokenize: false, add_generation_prompt: true })
      : text;
    const inputs = tokenizer(prompt, { add_special_tokens: !settings.chat });
    const times = [performance.now()];
    const stopping = new InterruptableStoppingCriteria();
    let answer = "";
    const streamer = new TextStreamer(tokenizer, {
      skip_prompt: true,
      token_callback_function: () => times.push(performance.now()),
      callback_function: (piece) => {
        answer += piece;
        const end = settings.stop ? answer.indexOf(settings.stop) : -1;
        if (end >= 0) stopping.interrupt();
        show(end >= 0 ? answer.slice(0, end) : answer);
      },
    });
    await model.generate({ ...inputs, max_new_tokens: settings.maxNewTokens, do_sample: false, streamer,
                           stopping_criteria: stopping });
    const steps = times.slice(1).map((time, index) => time - times[index]);
    return { prompt_tokens: inputs.input_ids.dims[1], tokenize_ms: times[0] - started, prefill_ms: steps[0],
             token_ms: steps.slice(1) };
  };
}

/** As `loadGenerator`, for a classifier whose outputs stand for themselves: any number of labels, or scores. */
async function loadOutputs() {
  const tokenizer = await AutoTokenizer.from_pretrained("model");
  const model = await AutoModelForSequenceClassification.from_pretrained("model", { device: settings.device });
  return async (text, show) => {
    const started = performance.now();
    const inputs = tokenizer(text, { truncation: true });
    const { logits } = await model(inputs);
    const values = Array.from(settings.head === "score" ? logits.data : logits.sigmoid().data);
    const latency_ms = performance.now() - started;
    const said = values.map((score, place) => ({ label: settings.labels[place], score }));
    show(JSON.stringify(settings.head === "sigmoid" ? said.filter(({ score }, place) => score >= settings.thresholds[place])
      : said));
    return { prompt_tokens: inputs.input_ids.dims[1], latency_ms };
  };
}

/** As `loadGenerator`, for a classifier that chooses one label, or an embedder. */
async function loadEncoder() {
  const encoder = await pipeline(settings.pipeline, "model", { device: settings.device });
  return async (text, show) => {
    const started = performance.now();
    const found = await encoder(text, settings.options);
    const latency_ms = performance.now() - started;
    show(JSON.stringify(settings.task === "embed" ? Array.from(found.data) : found[0]));
    return { prompt_tokens: encoder.tokenizer(text).input_ids.dims[1], latency_ms };
  };
}

function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  const place = share * (sorted.length - 1), below = Math.floor(place);
  return sorted[below] + (place - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const median = (values) => (values.length ? percentile(values, 0.5) : null);
const percentiles = (values) => (values.length
  ? { p50: percentile(values, 0.5), p90: percentile(values, 0.9), p99: percentile(values, 0.99), max: Math.max(...values) }
  : null);

/** The document that `edgestill profile --json` prints; a page cannot know its peak memory. */
function profile(load_ms, start_ms, runs) {
  const files = performance.getEntriesByType("resource").filter(({ name }) => name.includes("/model/onnx/"));
  const decoded = runs.filter(({ token_ms }) => token_ms?.length);
  const generates = settings.task === "generate";
  return {
    kind: settings.task, threads, file_bytes: sum(files.map((file) => file.decodedBodySize)), peak_rss_bytes: null,
    load_ms, start_ms, prompt_tokens: runs[0].prompt_tokens,
    machine: { cpu: null, cores_logical: navigator.hardwareConcurrency, system: navigator.userAgent, machine: settings.device,
               versions: { "transformers.js": env.version } },
    new_tokens: generates ? runs[0].token_ms.length + 1 : null, context: null,
    ttft_ms: generates ? median(runs.map((run) => run.tokenize_ms + run.prefill_ms)) : null,
    prefill_tokens_per_s: generates ? median(runs.map((run) => (1000 * run.prompt_tokens) / run.prefill_ms)) : null,
    decode_tokens_per_s: median(decoded.map((run) => (1000 * run.token_ms.length) / sum(run.token_ms))),
    token_ms: percentiles(decoded.flatMap((run) => run.token_ms)),
    latency_ms: generates ? null : percentiles(runs.map((run) => run.latency_ms)),
    texts_per_s: generates ? null : (1000 * runs.length) / sum(runs.map((run) => run.latency_ms)),
    raw: { prompt_source: "page", repeats: runs.length, runs },
  };
}

const element = (id) => document.getElementById(id);
const told = (work) => async (...given) => {
  try {
    await work(...given);
  } catch (error) {
    element("state").textContent = `error: ${error.message}`;
  }
};

await told(async () => {
  const load = settings.task === "generate" ? loadGenerator
    : settings.head === "" || settings.head === "softmax" ? loadEncoder : loadOutputs;
  const run = await load();
  const load_ms = performance.now();
  element("form").addEventListener("submit", told(async (event) => {
    event.preventDefault();
    element("run").disabled = true;
    element("state").textContent = "running …";
    const runs = [];
    while (runs.length < Number(element("repeats").value))
      runs.push(await run(element("text").value, (answer) => { element("answer").textContent = answer; }));
    const start_ms = load_ms + (runs[0].latency_ms ?? runs[0].tokenize_ms + runs[0].prefill_ms);
    element("profile").textContent = JSON.stringify(profile(load_ms, start_ms, runs), null, 2);
    element("run").disabled = false;
    element("state").textContent = "done";
  }));
  element("run").disabled = false;
  element("state").textContent = "ready";
})();
