// node-llama-cpp's greedy answers to `job.chats`.

export async function answers({ getLlama, JinjaTemplateChatWrapper, LlamaLogLevel }, job) {
  const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1 });
  const model = await llama.loadModel({ modelPath: job.file });
  const context = await model.createContext({ contextSize: { max: 2048 }, threads: 1 });
  const sequence = context.getSequence();
  // The file's own template. Left to choose, it takes its ChatML wrapper for templates like that, which always puts
  // a begin-of-sequence token first, whatever template and file say.
  const wrapper = new JinjaTemplateChatWrapper({ template: model.fileInfo.metadata.tokenizer.chat_template });
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
  return { chats };
}
