import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Model, Run, Subject } from 'sitter';
import { FOX, fake, folder, plain, program } from './support.mjs';

test('closing while a call runs or waits lets it go on', async () => {
  const model = await fake('steps=10,step_ms=20');
  const subject = await model.train([plain(1)], { classWord: 'dog', embeddingSteps: 1 });
  const run = new Run();
  const running = model.sample('[V]', { subjects: [subject], seed: 5, run });
  const waiting = model.encode(plain(6));
  model.close();
  subject.close();
  run.close();
  const [sample] = await running;
  assert.equal(sample.tokens.grid[0], 5);
  assert.equal((await waiting).grid[0], 6);
});

test('what is closed says so, and closing twice is fine', async () => {
  const model = await fake();
  const [sample] = await model.sample('words');
  model.close();
  model.close();
  await assert.rejects(model.sample('words'), { code: 'SITTER_E_WRONG_HANDLE', message: /the model is closed/ });
  assert.throws(() => model.info, { code: 'SITTER_E_WRONG_HANDLE' });
  await assert.rejects(sample.image(), { code: 'SITTER_E_WRONG_HANDLE' });
  sample.close();
  const run = new Run();
  run.close();
  run.cancel();
  assert.throws(() => run.snapshot(), { code: 'SITTER_E_WRONG_HANDLE' });
});

test('objects are closed in any order', async () => {
  for (let i = 0; i < 6; i += 1) {
    const model = await fake();
    const [[sample], subject] = await Promise.all([model.sample('words'), model.train([plain(1)], { classWord: 'dog' })]);
    const objects = [model, sample, subject];
    for (const at of [i % 3, (i + 1 + (i > 2)) % 3, 0, 1, 2]) objects[at].close();
  }
});

test('using declarations close', { skip: Symbol.dispose ? false : 'this Node has no Symbol.dispose' }, async () => {
  const model = await fake();
  model[Symbol.dispose]();
  assert.throws(() => model.info, { code: 'SITTER_E_WRONG_HANDLE' });
});

test('classes are not made by hand, and other objects are no models', async () => {
  const model = await fake();
  assert.throws(() => new Model(), TypeError);
  assert.throws(() => new Subject(), TypeError);
  await assert.rejects(model.sample('words', { subjects: [model] }), { name: 'TypeError', message: /a Subject is needed/ });
  await assert.rejects(Model.prototype.sample.call({}, 'words'), { name: 'TypeError', message: /a Model is needed/ });
});

test('what is not closed is freed by the garbage collector', { skip: process.platform !== 'linux' && 'reads /proc' }, async () => {
  // Each model has a thread of its own as long as it is there.
  const source = `
    import { readdirSync } from 'node:fs';
    const threads = () => readdirSync('/proc/self/task').length;
    const kept = [];
    const use = async () => {
      const model = await Model.open('fake:steps=1', { threads: 1 });
      const [sample] = await model.sample('words');
      kept.push(model, sample, await model.train([await sample.image()], { classWord: 'dog' }));
    };
    await use();
    const before = threads();
    for (let i = 0; i < 30; i++) await use();
    const most = threads() - before;
    kept.length = 0;
    for (let i = 0; i < 20; i++) { globalThis.gc(); await new Promise((resolve) => setTimeout(resolve, 20)); }
    console.log(most, threads() - before);`;
  const { code, stdout, stderr } = await program(source, '--expose-gc');
  assert.equal(code, 0, stderr);
  const [most, left] = stdout.split(' ').map(Number);
  assert.ok(most >= 10 && left <= 2, `${most} more threads, and ${left} after a collection`);
});

test('models and subjects that nobody closes do not pile up', async (t) => {
  const place = folder(t);
  const source = `
    const FOX = ${JSON.stringify(FOX.slice(0, 1))};
    const growth = async (times, make) => {
      await make();
      const before = process.memoryUsage().rss;
      let most = 0;
      for (let i = 0; i < times; i++) {
        await make();
        most = Math.max(most, process.memoryUsage().rss - before);
      }
      return Math.round(most / 1e6);
    };
    const open = () => Model.open('embedded:', { threads: 1 });
    const models = await growth(50, open);
    const model = await open();
    const subject = await model.train(FOX, { classWord: 'fox', embeddingSteps: 1, layerSteps: 1, augment: 0 });
    await subject.save('${place}/fox');
    const subjects = await growth(150, () => Subject.load('${place}/fox'));
    console.log(JSON.stringify({ models, subjects, numbers: subject.info.storedNumbers }));`;
  const { code, stdout, stderr } = await program(source);
  assert.equal(code, 0, stderr);
  const { models, subjects, numbers } = JSON.parse(stdout);
  assert.ok(numbers > 1e6, `${numbers}`);
  assert.ok(models < 500 && subjects < 300, `${models} MB of 1000, ${subjects} MB of ${Math.round(numbers * 6e-4)}`);
});

test('who keeps ever more models is told so, and those that were dropped make room', async () => {
  const source = `
    const open = () => Model.open('fake:steps=1', { threads: 1 });
    const kept = [];
    let refused;
    while (refused === undefined) {
      try { kept.push(await open()); } catch (error) { refused = error; }
    }
    console.log(kept.length, refused.code, refused.message);
    kept[7].close();
    kept[7] = await open();
    await open().catch((error) => console.log(error.code));
    kept.length = 0;
    await open();
    const all = await Promise.allSettled(Array.from({ length: 200 }, open));
    console.log(all.filter(({ status }) => status === 'rejected').length > 0);`;
  const { code, stdout, stderr } = await program(source);
  assert.equal(code, 0, stderr);
  const lines = stdout.trim().split('\n');
  assert.match(lines[0], /^128 SITTER_E_RESOURCE_EXHAUSTED 128 models are open.*128 models \(.* GB\); close\(\)/);
  assert.deepEqual(lines.slice(1), ['SITTER_E_RESOURCE_EXHAUSTED', 'true']);
});

for (const [how, end, expected] of [
  ['process.exit', 'process.exit(3)', 3],
  ['an exception that nobody catches', 'throw new Error("out")', 1],
]) {
  test(`${how} ends the process at once while calls run and wait`, async () => {
    const source = `
      const model = await Model.open('fake:steps=1000,step_ms=20');
      const other = await Model.open('fake:steps=1000,step_ms=20');
      model.sample('words', { onProgress() {} });
      model.sample('words');
      other.train([{ data: new Uint8Array(12), width: 2, height: 2 }], { classWord: 'dog', onProgress() {} });
      setTimeout(() => { ${end}; }, 200);`;
    const { code, signal, stderr, ms } = await program(source);
    assert.deepEqual([code, signal], [expected, null], stderr);
    assert.ok(ms < 5000, `${ms} ms; the calls would take 20 s`);
  });
}

test('a process whose work is done ends by itself with models open', async () => {
  const { code, stderr } = await program("await (await Model.open('fake:steps=2')).sample('words'); new Run();");
  assert.equal(code, 0, stderr);
});

test('SIGTERM ends the process at once', async () => {
  const source = `
    const model = await Model.open('fake:steps=1000,step_ms=20');
    model.sample('words', { onProgress() {} });
    setTimeout(() => process.kill(process.pid, 'SIGTERM'), 200);`;
  const { signal, ms } = await program(source);
  assert.equal(signal, 'SIGTERM');
  assert.ok(ms < 5000, `${ms}`);
});

/** Runs the body of a module in a worker; gives its exit code and what it posted. */
function worker(source, act) {
  const module = `import { parentPort } from 'node:worker_threads'; import { Model } from 'sitter'; ${source}`;
  const url = `data:text/javascript,${encodeURIComponent(module.replace("'sitter'", `'${import.meta.resolve?.('sitter') ?? new URL('../src/index.js', import.meta.url)}'`))}`;
  return new Promise((resolve, reject) => {
    const posted = [];
    const thread = new Worker(new URL(url));
    thread.on('message', (message) => {
      posted.push(message);
      act?.(thread);
    });
    thread.on('error', reject);
    thread.on('exit', (code) => resolve({ code, posted }));
  });
}

test('threads each have a package of their own', async () => {
  const source = `
    const events = [];
    const model = await Model.open('fake:steps=10,step_ms=10');
    const [sample] = await model.sample('words', { seed: 9, onProgress: (event) => events.push(event.done) });
    parentPort.postMessage([sample.tokens.grid[0], events.at(-1)]);`;
  const model = await fake('steps=10,step_ms=10');
  const all = await Promise.all([worker(source), worker(source), model.sample('words', { seed: 4 })]);
  assert.deepEqual(all[0], { code: 0, posted: [[9, 10]] });
  assert.deepEqual(all[1], { code: 0, posted: [[9, 10]] });
  assert.equal(all[2][0].tokens.grid[0], 4);
});

test('a thread that is terminated while its call runs ends when the call does', async () => {
  const source = `
    const model = await Model.open('fake:steps=30,step_ms=20');
    model.sample('words', { onProgress() {} });
    parentPort.postMessage('runs');`;
  const { code } = await worker(source, (thread) => thread.terminate());
  assert.equal(code, 1);
});

test('a thread that exits while its call runs stops the call', async () => {
  const started = Date.now();
  const source = `
    const model = await Model.open('fake:steps=1000,step_ms=20');
    model.sample('words', { onProgress() {} });
    setTimeout(() => process.exit(4), 100);`;
  const { code } = await worker(source);
  assert.equal(code, 4);
  assert.ok(Date.now() - started < 5000);
});

test('subjects are saved and loaded', async (t) => {
  const model = await fake();
  const subject = await model.train([plain(1)], { classWord: 'dog', identifier: '<dog>' });
  const path = `${folder(t)}/dög.safetensors`;
  await subject.save(path);
  const loaded = await Subject.load(path);
  assert.deepEqual(loaded.info, subject.info);
  assert.deepEqual(loaded.losses, subject.losses);
  await assert.rejects(Subject.load(`${path}.missing`), { code: 'SITTER_E_NOT_FOUND' });
  await assert.rejects(subject.save('/no/such/folder/x'), { code: 'SITTER_E_NOT_FOUND' });
});
