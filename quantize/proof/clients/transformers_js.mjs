// What transformers.js makes of a job: the same function in Node and in a browser, for versions 3 and 4.

/** Greedy answers to `job.chats`, and labels of `job.texts`. */
export async function answers(transformers, job) {
  const { AutoModelForCausalLM, AutoTokenizer, env, pipeline } = transformers;
  env.allowRemoteModels = false;
  env.localModelPath = job.models;
  const options = job.device ? { device: job.device } : {};
  const result = { version: env.version, chats: [], labels: [] };
  if (job.chats.length) {
    const tokenizer = await AutoTokenizer.from_pretrained(job.name);
    const model = await AutoModelForCausalLM.from_pretrained(job.name, options);
    for (const messages of job.chats) {
      const text = tokenizer.apply_chat_template(messages, { tokenize: false, add_generation_prompt: true });
      const inputs = tokenizer(text, { add_special_tokens: false });
      const prompt = Array.from(inputs.input_ids.data, Number);
      const made = await model.generate({ ...inputs, max_new_tokens: job.tokens });
      result.chats.push({ text, prompt, ids: Array.from(made.data, Number).slice(prompt.length) });
    }
  }
  if (job.texts.length) {
    const classify = await pipeline("text-classification", job.name, options);
    for (const text of job.texts) result.labels.push((await classify(text))[0]);
  }
  return result;
}
