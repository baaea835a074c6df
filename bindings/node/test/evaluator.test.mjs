// Measuring pictures, with the small networks of the repository's tests.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { Evaluator } from '../src/index.js';

const golden = new URL('../../../tests/golden/evaluate/', import.meta.url);
const pictures = new URL('../../../assets/subjects/', import.meta.url);
const fox = [1, 2, 3].map((n) => new URL(`fox/${n}.png`, pictures));
const dog = new URL('dog/1.png', pictures);

const open = () => Evaluator.open({ dino: new URL('dino', golden), clip: new URL('clip', golden) });
const close = (a, b) => Math.abs(a - b) < 1e-4;

test('vectors are those that PyTorch makes', async () => {
  const evaluator = await open();
  const { texts } = JSON.parse(readFileSync(new URL('expected.json', golden), 'utf8'));
  const found = await evaluator.clipText(texts.map(({ text }) => text));
  found.forEach((vector, i) => vector.forEach((v, k) => assert.ok(close(v, texts[i].clip[k]), texts[i].text)));
  const one = await evaluator.clipText('a dog in the snow');
  assert.ok(one instanceof Float32Array && one.length === evaluator.info.clip.size);
  const [first, second] = await evaluator.dino([fox[0], dog]);
  assert.deepEqual(await evaluator.dino(fox[0]), first);
  assert.notDeepEqual(first, second);
  assert.equal((await evaluator.clipImage(dog)).length, 20);
  assert.deepEqual(await evaluator.dino([]), []);
  evaluator.close();
  await assert.rejects(evaluator.dino(dog), { code: 'SITTER_E_WRONG_HANDLE' });
});

test('pictures are scored, files that cannot be read are listed', async () => {
  const evaluator = await open();
  const texts = ['a {} fox', 'a {} dog', 'a {} ghost'];
  const given = { texts, protocol: 'D', identifier: '[V]', classPictures: [dog], untouched: [fox[2]] };
  const scores = await evaluator.score([fox[0], dog, 'no/such.png'], fox.slice(0, 2), given);
  assert.deepEqual([scores.protocol, scores.pictures, scores.references, scores.texts], ['D', 2, 2, 2]);
  assert.deepEqual(scores.each.map((e) => e.text), ['a {} fox', 'a {} dog']);
  assert.deepEqual([scores.each[0].nearest, scores.each[0].copy], [0, true]);
  assert.ok(close(scores.each[0].dinoMax, 1) && typeof scores.clipTPrompt === 'number' && scores.diversity === null);
  assert.deepEqual(scores.failed.map((f) => [f.role, f.name]), [['picture', 'no/such.png']]);
  assert.equal(scores.leakage.pictures, 1);
  assert.match(scores.networks.dino.files[0].sha256, /^[0-9a-f]{64}$/);
  assert.match(scores.rules.text, /\{\}/);
  await assert.rejects(evaluator.score(fox, fox, { texts: ['one'] }), { code: 'SITTER_E_INVALID_ARGUMENT' });
  await assert.rejects(evaluator.score(fox, fox, { protocol: 'C' }), /one/);
  await assert.rejects(evaluator.score(fox, fox, { protocol: 'E' }), { code: 'SITTER_E_INVALID_ARGUMENT' });
});

test('leakage says how far the class has gone to the subject', async () => {
  const evaluator = await open();
  for (const [drawn, share] of [[fox[0], 1], [dog, 0]]) {
    const { leakage } = await evaluator.score(fox[0], fox[0], { classPictures: [drawn], untouched: [dog] });
    assert.ok(close(leakage.share, share), `${leakage.share}`);
  }
});

test('progress is told and can stop', async () => {
  const evaluator = await Evaluator.open({ dino: 'fake:steps=5,step_ms=60', threads: 1 });
  const seen = [];
  await evaluator.dino(dog, { onProgress: (event) => seen.push(event.stage) });
  assert.ok(seen.includes('score'), `${seen}`);
  await assert.rejects(evaluator.dino(dog, { onProgress: () => { throw new Error('enough'); } }), /enough/);
  await assert.rejects(evaluator.dino(dog, { signal: AbortSignal.timeout(20) }), { name: 'TimeoutError' });
});

test('networks that are not there are refused by name', async () => {
  await assert.rejects(Evaluator.open({}), /dino, clip/);
  await assert.rejects(Evaluator.open({ dino: 'no/such/folder' }), { code: 'SITTER_E_NOT_FOUND' });
  await assert.rejects(Evaluator.open({ dinosaur: 'x' }), /dinosaur/);
  const evaluator = await Evaluator.open({ dino: new URL('dino', golden) });
  await assert.rejects(evaluator.clipText('x'), /CLIP/);
  assert.throws(() => new Evaluator(), TypeError);
});
