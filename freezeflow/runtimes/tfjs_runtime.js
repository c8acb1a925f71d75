// Answers saved calls with a graph model, on TensorFlow.js's processor backend. Arguments: the folder
// of @tensorflow/tfjs, model.json, names (JSON), calls, answers.
'use strict';

const fs = require('fs');
const path = require('path');
const {answerCalls} = require('./tfjs_calls.js');

const [, , library, file, names, calls, answers] = process.argv;
const tf = require(library);

// A part of a file as bytes of their own, whatever buffer they were read into.
function bytesOf(buffer) {
  return buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength);
}

function handler() {
  const model = JSON.parse(fs.readFileSync(file, 'utf8'));
  const specs = [];
  const shards = [];
  for (const group of model.weightsManifest) {
    specs.push(...group.weights);
    shards.push(...group.paths.map((name) => fs.readFileSync(path.join(path.dirname(file), name))));
  }
  return {
    load: async () => ({
      modelTopology: model.modelTopology,
      signature: model.signature,
      format: model.format,
      weightSpecs: specs,
      weightData: bytesOf(Buffer.concat(shards)),
    }),
  };
}

async function main() {
  await tf.setBackend('cpu');
  const model = await tf.loadGraphModel(handler());
  const given = JSON.parse(fs.readFileSync(`${calls}.json`, 'utf8'));
  const data = bytesOf(fs.readFileSync(`${calls}.bin`));
  const found = await answerCalls(tf, model, JSON.parse(names), given, data);
  fs.writeFileSync(`${answers}.bin`, Buffer.concat(found.parts));
  fs.writeFileSync(`${answers}.json`, JSON.stringify(found.index));
}

main().catch((error) => {
  console.error(error);
  fs.writeFileSync(`${answers}.refused`, String(error.message || error));
  process.exit(0);
});
