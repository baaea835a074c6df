import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import * as sitter from 'sitter';
import { Model, SitterError, Tokens, savePng } from 'sitter';
import { FOX, fake, folder, plain, program } from './support.mjs';

const require = createRequire(import.meta.url);
const abi = require('../src/abi.json');
const model = await fake();
const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
const invalid = (message) => ({ name: 'SitterError', code: 'SITTER_E_INVALID_ARGUMENT', message });

test('facts about the library', () => {
  assert.match(sitter.version(), /^\d+\.\d+\.\d+/);
  assert.equal(sitter.buildInfo().version, sitter.version());
  assert.equal(sitter.devices()[0].name, 'cpu');
  assert.equal(sitter.hasFeature('embedded_model'), true);
  assert.equal(sitter.hasFeature('no such feature'), false);
});

test('require and import give the same objects', () => {
  assert.equal(require('sitter').Model, Model);
  assert.deepEqual(Object.keys(sitter).filter((name) => name !== 'default').sort(), Object.keys(require('sitter')).sort());
});

test('the TypeScript declarations name every export, member and option', () => {
  const types = readFileSync(new URL('../index.d.ts', import.meta.url), 'utf8');
  for (const [name, value] of Object.entries(require('sitter'))) {
    assert.match(types, new RegExp(`export (class|function) ${name}\\b`));
    if (!String(value).startsWith('class')) continue;
    const [, body] = new RegExp(`export class ${name}\\b[^{]*{([\\s\\S]*?)\\n}`).exec(types);
    const inherited = value.prototype instanceof Error ? [] : Object.getOwnPropertyNames(Object.getPrototypeOf(value.prototype));
    const members = [...Object.getOwnPropertyNames(value.prototype), ...inherited].filter((m) => !(m in Object.prototype));
    for (const member of members) assert.match(body, new RegExp(`\\b${member}\\b`), `${name}.${member}`);
  }
  const options = readFileSync(new URL('../src/options.d.ts', import.meta.url), 'utf8');
  for (const field of Object.values(abi.options).flatMap(Object.keys)) assert.match(options, new RegExp(`\\b${camel(field)}\\?:`));
});

test('every function of the table is in the library, and every option has a setter in the table', () => {
  const names = abi.prototypes.map((prototype) => /(\w+)\(/.exec(prototype)[1]);
  for (const [noun, fields] of Object.entries(abi.options)) {
    for (const field of Object.keys(fields)) assert.ok(names.includes(`sitter_${noun}_options_set_${field}`), field);
  }
});

test('every option can be set to the value it has', async () => {
  const { method, ...train } = model.trainOptions('lora');
  assert.equal(method, 'lora');
  assert.deepEqual(Object.keys(train).sort(), Object.keys(abi.options.train).map(camel).sort());
  await model.train([plain(1)], { ...train, method, classWord: 'dog' });
  await model.sample('words', model.sampleOptions());
});

test('options of every kind arrive', async () => {
  const options = {
    initialEmbedding: [0.5, 1],
    layers: new Uint32Array([1, 2]),
    templates: ['a {}', 'ein Bild von {} – schön'],
    checkpointPath: null,
    initialWord: 'dog',
    flip: true,
    seed: 2n ** 64n - 1n,
    batchSize: 4,
    accumulation: 4,
  };
  await model.train([plain(1)], { classWord: 'dog', ...options });
  await assert.rejects(model.train([plain(1)], { classWord: 'dog', templates: ['no place'] }), invalid(/templates.*no place/));
  await assert.rejects(model.train([plain(1)], { classWord: 'dog', dropout: 1 }), invalid(/dropout/));
  await assert.rejects(model.train([plain(1)], { classWord: 'dog', initialEmbedding: [NaN] }), invalid(/initial_embedding/));
});

test('values that C cannot hold, and options that do not exist, are refused', async () => {
  const sample = (options) => model.sample('words', options);
  await assert.rejects(sample({ seed: -1 }), invalid(/seed/));
  await assert.rejects(sample({ seed: 2n ** 64n }), invalid(/seed/));
  await assert.rejects(sample({ seed: 2 ** 60 }), invalid(/seed.*BigInt/));
  await assert.rejects(sample({ width: 2 ** 32 }), invalid(/width/));
  await assert.rejects(sample({ topK: 1.5 }), invalid(/topK/));
  for (const count of [-1, 0, 257, 4e9, 1.5]) {
    await assert.rejects(sample({ count }), invalid(new RegExp(`count: is ${count}; allowed are 1 to 256`)));
  }
  await assert.rejects(model.train([plain(1)], { classWord: 'dog', embeddingSteps: -1 }), invalid(/embeddingSteps: is -1; negative/));
  await assert.rejects(sample({ temperature: NaN }), invalid(/temperature/));
  await assert.rejects(sample({ temperature: '1' }), { name: 'TypeError', message: /temperature: a number is needed/ });
  await assert.rejects(sample({ tempreature: 1 }), { name: 'TypeError', message: /no option tempreature/ });
  await assert.rejects(sample({ top_k: 1 }), { name: 'TypeError', message: /no option top_k/ });
  await assert.rejects(sample({ toString: 1 }), TypeError);
  await assert.rejects(sample({ onProgress: 1 }), TypeError);
  await assert.rejects(sample({ signal: 1 }), TypeError);
  await assert.rejects(sample({ run: {} }), TypeError);
  await assert.rejects(sample({ subjects: {} }), TypeError);
  await assert.rejects(model.sample('a\0b'), invalid(/prompt/));
  await assert.rejects(model.sample(), TypeError);
  await assert.rejects(Model.open(7), TypeError);
  await assert.rejects(Model.open('fake:', { threads: 5000 }), invalid(/threads/));
  await assert.rejects(Model.open('fake:', { device: 'abacus' }), invalid(/device/));
  await assert.rejects(model.train([plain(1)], { classWord: 'dog', flip: 1 }), TypeError);
  await assert.rejects(model.train([plain(1)], { classWord: 'dog', captions: [] }), invalid(/captions/));
  await assert.rejects(model.train([plain(1)], { classWord: 'dog', method: 'magic' }), invalid(/magic/));
  await assert.rejects(model.train(plain(1), { classWord: 'dog' }), TypeError);
  await assert.rejects(model.train([], { classWord: 'dog' }), invalid(/pictures/));
  assert.throws(() => model.trainOptions('magic'), invalid(/magic/));
});

test('options that are misspelt are told what was meant', async () => {
  const told = (words) => ({ name: 'TypeError', message: words });
  await assert.rejects(model.sample('words', { tempreature: 1 }), told(/no option tempreature; did you mean temperature\?/));
  await assert.rejects(model.sample('words', { top_k: 1 }), told(/did you mean topK\?/));
  await assert.rejects(model.sample('words', { onprogress() {} }), told(/did you mean onProgress\?/));
  await assert.rejects(model.sample('words', { subject: [] }), told(/did you mean subjects\?/));
  await assert.rejects(model.sample('words', { qqqq: 1 }), told(/there are decoding, .*window, signal, onProgress, run, count, subjects$/));
  await assert.rejects(model.train([plain(1)], { class_word: 'dog' }), told(/did you mean classWord\?/));
  await assert.rejects(model.train([plain(1)], { classWord: 'dog', caption: [] }), told(/did you mean captions\?/));
  await assert.rejects(Model.open('fake:', { maxjobs: 2 }), told(/did you mean maxJobs\?/));
  await assert.rejects(model.encode(plain(1), { Size: 2 }), told(/did you mean size\?/));
  await assert.rejects(model.decode({ grid: [1], width: 1, height: 1 }, { signl: 2 }), told(/did you mean signal\?/));
  await assert.rejects(model.score('words', plain(1), { subject: [] }), told(/did you mean subjects\?/));
  assert.throws(() => sitter.estimate('embedded:', { trian: {} }), told(/did you mean train\?/));
  assert.throws(() => sitter.estimate('embedded:', { train: { metod: 'lora' } }), told(/did you mean method\?/));
});

test('options of an estimate stand over what the model recommends', () => {
  const of = (given) => ({ ...sitter.estimate('embedded:', { dtype: 'f32', ...given }), free: 0 });
  assert.deepEqual(of({ sample: {}, train: { method: 'two_stage' } }), of({}));
  assert.ok(of({ train: { imageSize: 192 } }).embedding > of({ train: { layerSteps: 1 } }).embedding);
});

test('no subjects are none, however it is said', async () => {
  assert.equal((await model.sample('words', { subjects: null })).length, 1);
  assert.equal(await model.score('four', plain(1), { subjects: null }), 4);
  await model.train([plain(1)], { classWord: 'dog', captions: null });
});

test('floats of another scale are refused', async () => {
  const floats = (...values) => model.encode({ data: new Float32Array(values), width: 1, height: 1 });
  assert.equal((await floats(-0.2, 0.5, 1.4)).grid[0], 0);
  await assert.rejects(floats(-1, 0, 1), invalid(/image.data: floats go from 0 to 1, these from -1; .*\(x \+ 1\) \/ 2/));
  await assert.rejects(floats(3, 255, 1), invalid(/up to 255; divide by 255/));
});

test('the largest seed draws what it should', async () => {
  const [one, two] = await model.sample('words', { seed: 2n ** 64n - 1n, count: 2 });
  assert.deepEqual([one.tokens.grid[0], two.tokens.grid[0]], [255, 0]);
});

test('pictures are taken from files, addresses of files, and pixels of every kind', async () => {
  const first = async (image) => (await model.encode(image)).grid[0];
  assert.equal(await first(plain(7)), 7);
  assert.equal(await first({ data: new Uint8ClampedArray(12).fill(8), width: 2, height: 2 }), 8);
  assert.equal(await first({ data: new Float32Array(12).fill(0.5), width: 2, height: 2 }), 128);
  assert.equal(await first({ data: Buffer.alloc(16, 255), width: 2, height: 2, channels: 4 }), 255);
  assert.equal(await first({ data: new Uint8Array([10, 10, 10, 0]), width: 1, height: 1 }), 255);
  assert.equal(await first({ data: new Uint8Array([10, 10, 10, 255]), width: 1, height: 1 }), 10);
  assert.equal(await first({ data: new Float32Array([0, 0, 0, 0.8]), width: 1, height: 1 }), 50, 'as bytes and files: truncated');
  assert.equal(await first({ data: new Uint8Array(40).fill(9).subarray(13, 25).fill(3), width: 2, height: 2 }), 3);
  assert.equal(await first(FOX[0]), await first(pathToFileURL(FOX[0])));
});

test('pictures that are none are refused', async () => {
  const encode = (image) => model.encode(image);
  await assert.rejects(encode('missing.png'), { code: 'SITTER_E_NOT_FOUND' });
  await assert.rejects(encode(new URL(import.meta.url)), { code: 'SITTER_E_BAD_FORMAT' });
  await assert.rejects(encode(undefined), TypeError);
  await assert.rejects(encode({ width: 1, height: 1 }), TypeError);
  await assert.rejects(encode({ data: [1, 2, 3], width: 1, height: 1 }), TypeError);
  await assert.rejects(encode({ ...plain(1), width: 3 }), invalid(/channels/));
  await assert.rejects(encode({ ...plain(1), width: 3, channels: 3 }), invalid(/12 numbers; 3x2 pixels of 3 need 18/));
  await assert.rejects(encode({ ...plain(1), width: 0, channels: 3 }), invalid(/data/));
  await assert.rejects(encode({ data: new Uint8Array(0), width: 0, height: 0, channels: 3 }), SitterError);
  await assert.rejects(encode({ data: new Float32Array(3).fill(NaN), width: 1, height: 1 }), invalid(/NaN/));
});

test('tokens are plain data', async () => {
  const tokens = new Tokens([1, 2, 3, 4, 5, 6], 3, 2);
  const image = await model.decode(tokens);
  assert.deepEqual([image.width, image.height, image.channels, image.data[3]], [3, 2, 3, 2]);
  assert.ok(image.data instanceof Uint8Array);
  assert.deepEqual(await model.decode(structuredClone({ ...tokens })), image);
  await assert.rejects(model.decode({ grid: [1, 2], width: 3, height: 2 }), invalid(/2 tokens; 3x2 are needed/));
  await assert.rejects(model.decode({ grid: [300], width: 1, height: 1 }), invalid(/300/));
  await assert.rejects(model.decode({ grid: [], width: 0, height: 0 }), SitterError);
  await assert.rejects(model.decode({ grid: [-1], width: 1, height: 1 }), invalid(/grid/));
  await assert.rejects(model.decode(undefined), TypeError);
});

test('one picture has a score, several have an array of scores', async () => {
  assert.equal(await model.score('four', plain(1)), 4);
  assert.deepEqual(await model.score('four', [plain(1), { grid: [1], width: 1, height: 1 }]), [4, 4]);
  assert.deepEqual(await model.score('four', []), []);
});

test('pictures are saved as PNG', async (t) => {
  const path = `${folder(t)}/π.png`;
  await savePng(path, plain(77, 3, 2));
  assert.equal((await model.encode(path)).grid[0], 77);
  await assert.rejects(savePng('/no/such/folder/x.png', plain(1)), { code: 'SITTER_E_NOT_FOUND' });
});

test('without a library the error names what was tried', async () => {
  const { code, stderr } = await program("process.env.SITTER_LIBRARY = 'nowhere/lib.so'; await Model.open('embedded:');");
  assert.equal(code, 1);
  assert.match(stderr, /cannot be loaded; tried\n.*nowhere\/lib\.so: not there\n.*SITTER_LIBRARY.*sitter-build/);
  const other = await program('process.env.SITTER_LIBRARY = process.execPath; await Model.open("embedded:");');
  assert.match(other.stderr, /cannot be loaded; tried/);
});
