// Saved calls as tensors of TensorFlow.js, and what it answers as saved answers; the same under Node.js
// and in a page. Calls and answers are described in freezeflow/proof/saved_calls.py.
'use strict';

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

function tensorOf(tf, entry, data) {
  const whole = data.slice(entry.offset, entry.offset + entry.nbytes);
  if (entry.dtype === 'string') {
    let start = 0;
    const words = entry.lengths.map((n) => new Uint8Array(whole.slice(start, (start += n))));
    return tf.tensor(words, entry.shape, 'string');
  }
  const values = READERS[entry.dtype](whole);
  if (entry.dtype === 'complex64') {
    const part = (first) => tf.tensor(values.filter((_, i) => i % 2 === first), entry.shape);
    return tf.complex(part(0), part(1));
  }
  const dtype = values instanceof Float32Array ? 'float32' : entry.dtype === 'bool' ? 'bool' : 'int32';
  return tf.tensor(values, entry.shape, dtype);
}

async function entryOf(tensor, out) {
  const entry = {dtype: tensor.dtype, shape: tensor.shape, offset: out.length, nbytes: 0};
  const add = (bytes) => {
    out.parts.push(bytes);
    out.length += bytes.length;
    entry.nbytes += bytes.length;
  };
  if (tensor.dtype === 'string') {
    const words = await tensor.bytes();
    entry.lengths = words.map((word) => word.length);
    words.forEach((word) => add(Uint8Array.from(word)));
  } else {
    // Its processor backend casts by name only: the data may still be of the type before.
    const Kind = {bool: Uint8Array, int32: Int32Array}[tensor.dtype] || Float32Array;
    const values = Kind.from(await tensor.data());
    add(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  return entry;
}

// Answers calls with a model: {index, parts}, the arrays' bytes in parts.
async function answerCalls(tf, model, ends, calls, data) {
  const out = {parts: [], length: 0};
  const index = [];
  for (const call of calls) {
    const feeds = {};
    for (const [key, entry] of Object.entries(call.arrays)) {
      feeds[ends.inputs[key]] = tensorOf(tf, entry, data);
    }
    const keys = Object.keys(ends.outputs);
    const results = await model.executeAsync(feeds, keys.map((key) => ends.outputs[key]));
    const tensors = Array.isArray(results) ? results : [results];
    const arrays = {};
    for (let i = 0; i < keys.length; i++) {
      arrays[keys[i]] = await entryOf(tensors[i], out);
    }
    index.push({arrays});
  }
  return {index, parts: out.parts};
}

if (typeof module !== 'undefined') {
  module.exports = {answerCalls};
}
