// Tokens of several grids, with a tiny model that draws scale after scale.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Model, Run, Tokens, estimate } from 'sitter';
import { HERE } from './support.mjs';

const MODEL = join(HERE, '../../../tests/golden/infinity');
const SIDES = [1, 2, 4, 6, 8, 12, 16];
const PROMPT = 'a red dog';

test('grids come back as they were given, and one grid is as it was', () => {
  const grids = [{ grid: [7], width: 1, height: 1 }, { grid: [1, 2, 3, 4, 5, 6], width: 3, height: 2 }];
  const tokens = Tokens.ofGrids(grids);
  assert.deepEqual([tokens.width, tokens.height, [...tokens.grid]], [3, 2, [1, 2, 3, 4, 5, 6]]);
  assert.deepEqual(tokens.grids.map(({ grid, width, height }) => ({ grid: [...grid], width, height })), grids);
  const one = new Tokens([1, 2], 2, 1);
  assert.deepEqual([Object.keys(one), one.grids.length], [['grid', 'width', 'height'], 1]);
  assert.throws(() => Tokens.ofGrids([]), TypeError);
  assert.throws(() => Tokens.ofGrids([{ grid: [1, 2], width: 1, height: 1 }, grids[1]]), { code: 'SITTER_E_INVALID_ARGUMENT' });
});

test('a picture goes through codes and back', async () => {
  const model = await Model.open(MODEL, { textEncoder: 'unload' });
  const [drawn] = await model.sample(PROMPT, { seed: 4 });
  assert.deepEqual(drawn.tokens.grids.map(({ width }) => width), SIDES);
  // As it would be kept in a file.
  const plain = (grids) => JSON.parse(JSON.stringify(grids.map((one) => ({ ...one, grid: [...one.grid] }))));
  const copy = Tokens.ofGrids(plain(drawn.tokens.grids));
  const image = await drawn.image();
  assert.deepEqual((await model.decode(copy)).data, image.data);
  const { grid, width, height, before } = copy;
  assert.deepEqual((await model.decode({ grid, width, height, before })).data, image.data);
  const encoded = await model.encode(image);
  assert.equal(encoded.grids.length, 7);
  const scores = await model.score(PROMPT, [drawn.tokens, copy, encoded]);
  assert.ok(scores[0] === scores[1] && scores[2] > 0 && scores[2] < 5, scores.join());
  await assert.rejects(model.decode({ grid, width, height }), /16x16/);
});

test('the picture so far is seen after every scale, and drawing stops between two', async () => {
  const model = await Model.open(MODEL);
  const [run, seen] = [new Run(), new Set()];
  const look = () => seen.add(run.tokens()?.grids.length);
  const [drawn] = await model.sample(PROMPT, { run, onProgress: look, width: 256, height: 256 });
  // Events are polled, so that some may be passed over.
  assert.ok([...seen].every((n) => n >= 1 && n <= 13), [...seen].join());
  assert.deepEqual(run.tokens(), drawn.tokens);
  const stopped = new AbortController();
  const onProgress = () => stopped.abort();
  await assert.rejects(
    model.sample(PROMPT, { signal: stopped.signal, onProgress, width: 256, height: 256, count: 8 }),
    { name: 'AbortError' },
  );
});

test('a text encoder counts in estimates while it stays', () => {
  const [kept, unloaded] = ['keep', 'unload'].map((textEncoder) => estimate(MODEL, { textEncoder }).weights);
  assert.ok(kept > unloaded, `${kept} ${unloaded}`);
});

test('lists of scales are options, and what is not known is refused', async () => {
  const model = await Model.open(MODEL);
  const draw = async (options) => (await model.sample(PROMPT, { seed: 4, ...options }))[0].tokens;
  const plain = await draw({ guidance: 3 });
  assert.deepEqual(await draw({ guidanceByScale: [3, 3] }), plain);
  assert.notDeepEqual(await draw({ guidanceByScale: [3, 9], temperatureByScale: new Float32Array([1, 2]), topP: 1 }), plain);
  await assert.rejects(draw({ guidanceByScale: Array(8).fill(3) }), /8 values.*7 scales/);
  await assert.rejects(draw({ topK: 5 }), /top_k.*guidance_by_scale/);
  await assert.rejects(draw({ width: 70 }), /64x64 and 80x64/);
});
