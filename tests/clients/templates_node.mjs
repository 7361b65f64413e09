// Chat templates as transformers.js renders them: node templates_node.mjs < job.json > texts.json
import { text } from "node:stream/consumers";
import { Template } from "@huggingface/jinja";

const job = JSON.parse(await text(process.stdin));
const rendered = job.map(({ source, variables }) => {
  try {
    return new Template(source).render(variables);
  } catch (error) {
    return { error: String(error) };
  }
});
process.stdout.write(JSON.stringify(rendered));
