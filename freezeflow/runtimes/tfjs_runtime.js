// Answers saved calls with a graph model, on TensorFlow.js's processor backend. Arguments: the folder
// of @tensorflow/tfjs, model.json, names (JSON), calls, answers. Calls and answers are described in
// freezeflow/proof/saved_calls.py.
'use strict';

const fs = require('fs');
const path = require('path');

const [, , library, file, names, calls, answers] = process.argv;
const tf = require(library);

const READERS = {
  float32: (b) => new Float32Array(b),
  float64: (b) => Float32Array.from(new Float64Array(b)),
  int8: (b) => Int32Array.from(new Int8Array(b)),
  int16: (b) => Int32Array.from(new Int16Array(b)),
  int32: (b) => new Int32Array(b),
  int64: (b) => Int32Array.from(new BigInt64Array(b), Number),
  uint8: (b) => Int32Array.from(new Uint8Array(b)),
  uint16: (b) => Int32Array.from(new Uint16Array(b)),
  uint32: (b) => Int32Array.from(new Uint32Array(b)),
  bool: (b) => new Uint8Array(b),
  complex64: (b) => new Float32Array(b),
};

function tensorOf(entry, data) {
  const bytes = data.subarray(entry.offset, entry.offset + entry.nbytes);
  if (entry.dtype === 'string') {
    let start = 0;
    const words = entry.lengths.map((n) => new Uint8Array(bytes.subarray(start, (start += n))));
    return tf.tensor(words, entry.shape, 'string');
  }
  const whole = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const values = READERS[entry.dtype](whole);
  if (entry.dtype === 'complex64') {
    const part = (first) => tf.tensor(values.filter((_, i) => i % 2 === first), entry.shape);
    return tf.complex(part(0), part(1));
  }
  const dtype = values instanceof Float32Array ? 'float32' : entry.dtype === 'bool' ? 'bool' : 'int32';
  return tf.tensor(values, entry.shape, dtype);
}

async function entryOf(tensor, out) {
  const entry = {dtype: tensor.dtype, shape: tensor.shape, offset: out.length};
  let bytes;
  if (tensor.dtype === 'string') {
    const words = (await tensor.bytes()).map((word) => Buffer.from(word));
    entry.lengths = words.map((word) => word.length);
    bytes = Buffer.concat(words);
  } else {
    const values = await tensor.data();
    bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  }
  entry.nbytes = bytes.length;
  out.parts.push(bytes);
  out.length += bytes.length;
  return entry;
}

function handler() {
  const model = JSON.parse(fs.readFileSync(file, 'utf8'));
  const specs = [];
  const shards = [];
  for (const group of model.weightsManifest) {
    specs.push(...group.weights);
    shards.push(...group.paths.map((name) => fs.readFileSync(path.join(path.dirname(file), name))));
  }
  const whole = Buffer.concat(shards);
  return {
    load: async () => ({
      modelTopology: model.modelTopology,
      signature: model.signature,
      format: model.format,
      weightSpecs: specs,
      weightData: whole.buffer.slice(whole.byteOffset, whole.byteOffset + whole.byteLength),
    }),
  };
}

async function main() {
  await tf.setBackend('cpu');
  const model = await tf.loadGraphModel(handler());
  const ends = JSON.parse(names);
  const data = fs.readFileSync(`${calls}.bin`);
  const out = {parts: [], length: 0};
  const found = [];
  for (const call of JSON.parse(fs.readFileSync(`${calls}.json`, 'utf8'))) {
    const feeds = {};
    for (const [key, entry] of Object.entries(call.arrays)) {
      feeds[ends.inputs[key]] = tensorOf(entry, data);
    }
    const keys = Object.keys(ends.outputs);
    const results = await model.executeAsync(feeds, keys.map((key) => ends.outputs[key]));
    const tensors = Array.isArray(results) ? results : [results];
    const arrays = {};
    for (let i = 0; i < keys.length; i++) {
      arrays[keys[i]] = await entryOf(tensors[i], out);
    }
    found.push({arrays});
  }
  fs.writeFileSync(`${answers}.bin`, Buffer.concat(out.parts));
  fs.writeFileSync(`${answers}.json`, JSON.stringify(found));
}

main().catch((error) => {
  console.error(error);
  fs.writeFileSync(`${answers}.refused`, String(error.message || error));
  process.exit(0);
});
