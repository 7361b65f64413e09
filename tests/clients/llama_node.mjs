// node-llama-cpp's greedy answers: node llama_node.mjs < job.json > answers.json
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import { getLlama, JinjaTemplateChatWrapper, LlamaLogLevel } from "node-llama-cpp";

const job = JSON.parse(await text(process.stdin));
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1 });
const model = await llama.loadModel({ modelPath: job.file });
const context = await model.createContext({ contextSize: 512, threads: 1 });
const sequence = context.getSequence();
// The file's own template. Left to choose, it takes its ChatML wrapper for templates like that, which always puts
// a begin-of-sequence token first, whatever template and file say.
const wrapper = new JinjaTemplateChatWrapper({ template: model.fileInfo.metadata.tokenizer.chat_template });
const version = JSON.parse(readFileSync(new URL("node_modules/node-llama-cpp/package.json", import.meta.url))).version;

const chats = [];
for (const messages of job.chats) {
  const chatHistory = messages.map(({ role, content }) =>
    role === "assistant" ? { type: "model", response: [content] } : { type: role, text: content });
  chatHistory.push({ type: "model", response: [""] });
  const prompt = wrapper.generateContextState({ chatHistory }).contextText.tokenize(model.tokenizer);
  const ids = [];
  await sequence.clearHistory();
  for await (const token of sequence.evaluate(prompt, { temperature: 0 })) {
    if (model.isEogToken(token) || ids.push(token) === job.tokens) break;
  }
  chats.push({ prompt, ids });
}
process.stdout.write(JSON.stringify({ version, chats }), () => process.exit(0)); // its worker threads would stay
