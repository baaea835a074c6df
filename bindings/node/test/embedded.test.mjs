// The real model, small enough for every machine.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Model, Subject } from 'sitter';
import { FOX, folder } from './support.mjs';

test('a subject is learned, saved, loaded and drawn', async (t) => {
  const place = folder(t);
  const model = await Model.open('embedded:');
  const { info } = model;
  assert.ok(info.parameters > 0 && info.vocabulary > info.codebook, JSON.stringify(info));

  const tokens = await model.encode(FOX[0]);
  assert.ok(tokens.grid.every((code) => code < info.codebook));
  const image = await model.decode(tokens);
  assert.deepEqual([image.width % info.gridUnitPx, image.height % info.gridUnitPx], [0, 0]);
  assert.equal(image.data.length, image.width * image.height * 3);

  const stages = new Set();
  const subject = await model.train(FOX, {
    classWord: 'fox',
    embeddingSteps: 2,
    layerSteps: 1,
    seed: 1,
    onProgress: (event) => stages.add(event.stage),
  });
  assert.deepEqual(subject.losses.map((loss) => loss.stage), ['embedding', 'embedding', 'layers']);
  assert.ok(subject.losses.every(({ loss }) => loss > 0 && loss < 20));
  assert.ok(stages.has('encode') && stages.has('layers'), [...stages].join());
  await subject.save(`${place}/fox.safetensors`);
  const loaded = await Subject.load(`${place}/fox.safetensors`);
  assert.equal(loaded.info.classWord, 'fox');

  const [plain, learned] = [await model.score('a fox', FOX[0]), await model.score('a [V] fox', [tokens], { subjects: [loaded] })];
  assert.ok(plain > 0 && plain < 20 && learned[0] > 0 && learned[0] < 20, `${plain} ${learned}`);

  const options = { subjects: [loaded], seed: 3n };
  const [one] = await model.sample('a [V] fox', options);
  const [same] = await model.sample('a [V] fox', options);
  assert.deepEqual(one.tokens, same.tokens);
  const [fast] = await model.sample('a [V] fox', { ...options, decoding: 'speculative', window: 8 });
  assert.deepEqual(one.tokens, fast.tokens);
  await one.savePng(`${place}/fox.png`);
  const png = readFileSync(`${place}/fox.png`);
  assert.equal(png.toString('latin1', 1, 4), 'PNG');
  assert.ok(png.includes('a [V] fox'), 'the file says what made it');
  assert.deepEqual((await one.image()).data, (await model.decode(same.tokens)).data);
});

test('a model that is not there, and a subject that no prompt names, are refused', async () => {
  await assert.rejects(Model.open('/no/such/model'), { code: 'SITTER_E_NOT_FOUND' });
  const model = await Model.open('embedded:');
  await assert.rejects(model.sample('words', { width: 17 }), { code: 'SITTER_E_INVALID_ARGUMENT' });
});
