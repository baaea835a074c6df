import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Model, Run, SitterError } from 'sitter';
import { FOX, fake, plain, sleep } from './support.mjs';

/** Every long call, of a model whose steps take 20 ms each. */
const CALLS = {
  open: (_, controls) => Model.open('fake:steps=100,step_ms=20,open=1', controls),
  encode: (model, controls) => model.encode(plain(1), controls),
  decode: (model, controls) => model.decode({ grid: [1, 2, 3, 4], width: 2, height: 2 }, controls),
  score: (model, controls) => model.score('words', { grid: [1], width: 1, height: 1 }, controls),
  scoreOfAPicture: (model, controls) => model.score('words', [plain(1)], controls),
  sample: (model, controls) => model.sample('words', controls),
  train: (model, controls) => model.train([plain(1)], { classWord: 'dog', ...controls }),
};

const slow = await fake('steps=100,step_ms=20');

test('progress begins at the first steps, never falls within a stage and ends with done equal to total', async () => {
  const model = await fake('steps=20,step_ms=10');
  const events = [];
  await model.train([plain(1)], { classWord: 'dog', onProgress: (event) => events.push(event) });
  assert.deepEqual([...new Set(events.map((event) => event.stage))], ['embedding', 'layers']);
  for (const stage of ['embedding', 'layers']) {
    const done = events.filter((event) => event.stage === stage).map((event) => event.done);
    assert.deepEqual(done, [...new Set(done)].sort((a, b) => a - b));
    assert.ok(done.length >= 3 && done[0] < 15, `${done}`);
  }
  const last = events.at(-1);
  assert.deepEqual([last.stage, last.done, last.total, last.loss], ['layers', 20, 20, 20]);
  assert.ok(last.elapsedMs >= 300 && last.elapsedMs < 20_000, `${last.elapsedMs}`);
});

test('what is drawn so far can be taken while a call draws: whole rows only', async () => {
  const model = await fake('steps=20,step_ms=20');
  const run = new Run();
  assert.equal(run.tokens(), null);
  const rows = [];
  await model.sample('words', { seed: 7, count: 2, run, onProgress: () => rows.push(run.tokens(1)?.height ?? 0) });
  assert.deepEqual([...new Set(rows)], [0, 1, 2]);
  const { grid, width, height } = run.tokens();
  assert.deepEqual([[...grid], width, height, run.tokens(2)], [[7, 7, 7, 7], 2, 2, null]);
});

test('the event loop turns while a call runs', async () => {
  let turns = 0;
  const timer = setInterval(() => (turns += 1), 10);
  const model = await fake('steps=20,step_ms=20');
  await model.sample('words');
  clearInterval(timer);
  assert.ok(turns > 10, `${turns}`);
});

for (const [name, start] of Object.entries(CALLS)) {
  test(`${name}: an exception in onProgress stops the call and is what it rejects with`, async () => {
    const thrown = new Error('mine');
    let calls = 0;
    const onProgress = () => {
      calls += 1;
      throw thrown;
    };
    await assert.rejects(start(slow, { onProgress }), (error) => error === thrown);
    assert.equal(calls, 1);
  });

  test(`${name}: a signal that aborts stops the call within 500 ms, which rejects with the signal's reason`, async () => {
    const controller = new AbortController();
    const running = start(slow, { signal: controller.signal });
    await sleep(150);
    const aborted = Date.now();
    controller.abort();
    await assert.rejects(running, (error) => error === controller.signal.reason && error.name === 'AbortError');
    assert.ok(Date.now() - aborted < 500);
  });

  test(`${name}: with a signal that has aborted nothing starts`, async () => {
    const reason = new Error('not today');
    let events = 0;
    const running = start(slow, { signal: AbortSignal.abort(reason), onProgress: () => (events += 1) });
    await assert.rejects(running, (error) => error === reason);
    assert.equal(events, 0);
  });

  test(`${name}: a run that is cancelled rejects with SITTER_E_CANCELLED`, async () => {
    const run = new Run();
    const running = start(slow, { run });
    await sleep(100);
    run.cancel();
    await assert.rejects(running, (error) => error instanceof SitterError && error.code === 'SITTER_E_CANCELLED');
  });
}

test('what an async onProgress rejects with is what the call rejects with', async () => {
  const thrown = new Error('later');
  const onProgress = async () => {
    await sleep(10);
    throw thrown;
  };
  await assert.rejects(slow.sample('words', { onProgress }), (error) => error === thrown);
});

test('a timeout signal rejects with a TimeoutError', async () => {
  await assert.rejects(slow.sample('words', { signal: AbortSignal.timeout(100) }), { name: 'TimeoutError' });
});

test('the model is as good as new after it was stopped', async () => {
  const model = await fake('steps=5,step_ms=20');
  for (let i = 0; i < 5; i += 1) {
    await assert.rejects(model.sample('words', { signal: AbortSignal.timeout(i * 20) }));
  }
  assert.equal((await model.sample('words', { seed: 7 }))[0].tokens.grid[0], 7);
});

test('finishing early gives what was learned so far', async () => {
  const run = new Run();
  const started = Date.now();
  const running = slow.train([plain(1)], { classWord: 'dog', run });
  await sleep(100);
  const event = run.snapshot();
  assert.equal(event.stage, 'embedding');
  assert.ok(event.done > 0 && event.done < 100, `${event.done}`);
  run.finishEarly();
  assert.equal((await running).info.classWord, 'dog');
  assert.ok(Date.now() - started < 2000);
});

test('a run has no event before its call and serves one call only', async () => {
  const model = await fake();
  const run = new Run();
  assert.equal(run.snapshot(), null);
  await model.sample('words', { run });
  await assert.rejects(model.sample('words', { run }), { code: 'SITTER_E_INVALID_STATE' });
});

test('a run that was cancelled before its call starts nothing', async () => {
  const run = new Run();
  run.cancel();
  await assert.rejects(slow.sample('words', { run }), { code: 'SITTER_E_CANCELLED' });
  assert.equal(run.snapshot(), null);
});

test('calls of one model wait for each other without threads of the pool, and can be stopped while they wait', async () => {
  const controller = new AbortController();
  const running = slow.sample('first', { signal: controller.signal });
  const waiting = Array.from({ length: 8 }, () => slow.sample('waiting', { signal: AbortSignal.timeout(50) }));
  const read = await readFile(FOX[0]);
  assert.ok(read.length > 0, 'the pool has threads left');
  const before = Date.now();
  for (const call of waiting) await assert.rejects(call, { name: 'TimeoutError' });
  assert.ok(Date.now() - before < 1000);
  const after = slow.encode(plain(3), { signal: AbortSignal.timeout(10_000) });
  controller.abort();
  await assert.rejects(running, { name: 'AbortError' });
  assert.deepEqual([...(await after).grid], [3, 3, 3, 3]);
});

test('a model takes as many calls at once as it was opened for', async () => {
  const model = await Model.open('fake:steps=20,step_ms=20', { maxJobs: 2, threads: 1 });
  const started = Date.now();
  const order = [];
  const calls = [1, 2, 3].map((seed) => model.sample('words', { seed }).then(() => order.push(seed)));
  await Promise.all(calls.slice(0, 2));
  assert.ok(Date.now() - started < 750, `${Date.now() - started} ms, one after the other would be 800`);
  assert.ok(!order.includes(3));
  await Promise.all(calls);
  await assert.rejects(Model.open('fake:', { maxJobs: 0 }), { code: 'SITTER_E_INVALID_ARGUMENT', message: /max_jobs/ });
});

test('what is drawn so far is decoded meanwhile by a model that takes two calls', async () => {
  const model = await Model.open('fake:steps=40,step_ms=10', { maxJobs: 2 });
  const run = new Run();
  let ended = false;
  const drawing = model.sample('words', { seed: 9, run }).then(() => (ended = true));
  let tokens = null;
  while ((tokens = run.tokens()) === null || tokens.height === 0) await sleep(10);
  const { data } = await (await fake('steps=1')).decode(tokens);
  const decoded = model.decode(tokens);
  assert.equal(ended, false);
  assert.deepEqual((await decoded).data, data);
  await drawing;
});

test('calls that leave the queue make no place and take none', async () => {
  const model = await Model.open('fake:steps=10,step_ms=10', { maxJobs: 2 });
  const calls = Array.from({ length: 30 }, (_, i) => {
    const controller = new AbortController();
    if (i % 3 === 0) setTimeout(() => controller.abort(), (i * 7) % 150);
    return model.sample('words', { seed: i, signal: controller.signal });
  });
  const done = await Promise.allSettled(calls);
  done.forEach(({ status, value }, i) => {
    if (i % 3 !== 0) assert.deepEqual([status, value[0].tokens.grid[0]], ['fulfilled', i]);
  });
  assert.equal((await model.sample('words', { seed: 3 }))[0].tokens.grid[0], 3);
});

test('several models work at once', async () => {
  const models = await Promise.all([1, 2, 3].map(() => fake('steps=20,step_ms=20')));
  const started = Date.now();
  const drawn = await Promise.all(models.map((model, seed) => model.sample('words', { seed })));
  assert.deepEqual(drawn.map(([sample]) => sample.tokens.grid[0]), [0, 1, 2]);
  assert.ok(Date.now() - started < 1100, `${Date.now() - started} ms, one after the other would be 1200`);
});

test('errors and panics of the work become errors with a code, and the model goes on', async () => {
  const failing = await fake('steps=4,fail_at=2');
  await assert.rejects(failing.sample('words'), { code: 'SITTER_E_INTERNAL', status: 901, message: /fails at step 2/ });
  const panicking = await fake('steps=4,panic_at=3');
  for (let i = 0; i < 3; i += 1) {
    await assert.rejects(panicking.sample('words'), { code: 'SITTER_E_PANIC', message: /panics at step 3/ });
  }
  assert.equal(panicking.info.family, 'fake');
});
