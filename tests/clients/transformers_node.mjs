// node transformers_node.mjs PACKAGE < job.json > answers.json
import { text } from "node:stream/consumers";
import { answers } from "./transformers_answers.mjs";

const transformers = await import(process.argv[2]);
const job = JSON.parse(await text(process.stdin));
transformers.env.allowRemoteModels = false;
transformers.env.localModelPath = `${job.models}/`;
const result = await answers(transformers, job);
process.stdout.write(JSON.stringify(result));
