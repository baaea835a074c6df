'use strict';
// Long calls: on threads of Node's pool, with progress and controls.
//
// Progress is polled, not called back. koffi hands a callback of such a call to the main thread and makes the call wait for
// it; when the process is to end meanwhile (process.exit, an exception that nobody catches), Node waits for its pool and the
// pool for the callback, for ever. Polling has nothing to wait for: a call whose run is cancelled ends by itself. What it
// costs is that steps shorter than a tick share an event; a subject has the loss of every step anyway.

const koffi = require('koffi');
const abi = require('./abi.json');
const { SitterError } = require('./error.js');
const { Handle, Owner, create, handleOf, own } = require('./handle.js');
const { call, native } = require('./library.js');
const { read } = require('./tokens.js');
const { u32, unknown } = require('./values.js');

const TICK_MS = 50;
const EVENT = koffi.struct(Object.fromEntries(abi.event));
const STAGES = new Map(
  Object.entries(abi.constants)
    .filter(([name]) => name.startsWith('STAGE_'))
    .map(([name, number]) => [number, name.slice('STAGE_'.length).toLowerCase()]),
);

/** Runs whose calls are in progress. */
const live = new Set();

// Node waits for its pool before it ends the process: so the calls have to end.
process.on('exit', () => {
  for (const pointer of live) native().run_cancel(pointer);
});

/** The newest event of a run; null before the first. */
function snapshot(pointer) {
  const buffer = Buffer.alloc(koffi.sizeof(EVENT));
  call('run_snapshot', pointer, buffer, buffer.length);
  const event = koffi.decode(buffer, EVENT);
  if (event.stage === 0) return null;
  return {
    stage: STAGES.get(event.stage) ?? 'unknown',
    done: Number(event.done),
    total: Number(event.total),
    elapsedMs: Number(event.elapsed_ms),
    loss: Number.isNaN(event.value) ? null : event.value,
    item: event.item,
    itemCount: event.item_count,
    warnings: Number(event.warnings),
  };
}

const controllers = new WeakMap();

/** Controls of one long call, from outside of it. */
class Run extends Owner {
  constructor() {
    super();
    own(this, create('run', 'run_new'));
    controllers.set(this, new AbortController());
  }

  cancel() {
    stop(this, new SitterError(abi.constants.E_CANCELLED, 'the run was cancelled'));
  }

  finishEarly() {
    native().run_finish_early(handleOf(this, Run).raw);
  }

  tokens(picture = 0) {
    const out = [null];
    try {
      call('run_tokens', handleOf(this, Run).pointer, u32(picture, 'picture'), out);
    } catch (error) {
      if (error.status === abi.constants.E_INVALID_STATE) return null;
      throw error;
    }
    const tokens = new Handle('tokens', out[0]);
    try {
      return read(tokens.pointer);
    } finally {
      tokens.close();
    }
  }

  snapshot() {
    return snapshot(handleOf(this, Run).pointer);
  }
}

/** Ends the call of a run, which then rejects with `reason`. The first reason stays. */
function stop(run, reason) {
  controllers.get(run).abort(reason);
  native().run_cancel(handleOf(run, Run).raw);
}

/** As many calls of one model as it takes run at once, the others after them; those that wait take no thread of the pool. */
class Queue {
  #free;
  #waiting = [];

  constructor(most = 1) {
    this.#free = most;
  }

  /** Does `work` when there is a place, in turn, unless `signal` aborts before. */
  async inTurn(signal, work) {
    if (this.#free > 0) {
      this.#free -= 1;
    } else {
      let enter;
      const place = new Promise((resolve) => {
        enter = resolve;
      });
      this.#waiting.push(enter);
      try {
        await untilAborted(place, signal);
      } catch (error) {
        // Who leaves before its turn has no place to give on, unless it was given one just then.
        const at = this.#waiting.indexOf(enter);
        if (at >= 0) this.#waiting.splice(at, 1);
        else this.#leave();
        throw error;
      }
    }
    try {
      signal.throwIfAborted();
      return await work();
    } finally {
      this.#leave();
    }
  }

  /** Gives the place to who waits longest. */
  #leave() {
    const enter = this.#waiting.shift();
    if (enter === undefined) this.#free += 1;
    else enter();
  }
}

async function untilAborted(promise, signal) {
  let forget;
  const aborted = new Promise((_, reject) => {
    const listener = () => reject(signal.reason);
    signal.addEventListener('abort', listener);
    forget = () => signal.removeEventListener('abort', listener);
  });
  try {
    signal.throwIfAborted();
    await Promise.race([promise, aborted]);
    signal.throwIfAborted();
  } finally {
    forget();
  }
}

/** Tells `onProgress` what is new about a run; what it throws goes to `fail`, and it is not called again. */
function reporter(pointer, onProgress, fail) {
  let told = '';
  let failed = false;
  const failing = (error) => {
    failed = true;
    fail(error);
  };
  return () => {
    const event = failed ? null : snapshot(pointer);
    const key = event && `${event.stage} ${event.done} ${event.total} ${event.item}`;
    if (event === null || key === told) return;
    told = key;
    try {
      const answer = onProgress(event);
      if (typeof answer?.then === 'function') answer.then(undefined, failing);
    } catch (error) {
      failing(error);
    }
  };
}

const CONTROLS = ['signal', 'onProgress', 'run'];

/** Checks controls. `beside` are names that the caller has taken out. */
function check({ run, signal, onProgress, ...more }, beside = []) {
  for (const name of Object.keys(more)) throw unknown(name, [...CONTROLS, ...beside]);
  if (onProgress !== undefined && typeof onProgress !== 'function') throw new TypeError('onProgress: a function is needed');
  if (signal !== undefined && typeof signal?.aborted !== 'boolean') throw new TypeError('signal: an AbortSignal is needed');
  if (run !== undefined) handleOf(run, Run);
}

/**
 * Does a long call in its turn. `work` gets the pointer of its run. If the signal aborts, the run is cancelled or
 * `onProgress` throws, the promise rejects with that reason, even if the work was done just then.
 */
async function perform(queue, controls, work) {
  check(controls);
  const { run = new Run(), signal, onProgress } = controls;
  const handle = handleOf(run, Run);
  const stopped = controllers.get(run).signal;
  const forward = () => stop(run, signal.reason);
  const pointer = handle.hold();
  signal?.addEventListener('abort', forward);
  if (signal?.aborted) forward();
  try {
    const result = await queue.inTurn(stopped, async () => {
      const report = onProgress && reporter(pointer, onProgress, (error) => stop(run, error));
      const timer = report && setInterval(report, TICK_MS);
      live.add(pointer);
      try {
        const made = await work(pointer);
        report?.();
        return made;
      } finally {
        live.delete(pointer);
        clearInterval(timer);
      }
    });
    stopped.throwIfAborted();
    return result;
  } catch (error) {
    throw stopped.aborted ? stopped.reason : error;
  } finally {
    signal?.removeEventListener('abort', forward);
    handle.release();
    if (controls.run === undefined) run.close();
  }
}

/** A signal that aborts when the signal or the run of these controls does, for calls that come before the run's own. */
function stopSignal({ run, signal }) {
  const both = new AbortController();
  const follow = (source) => {
    if (source.aborted) both.abort(source.reason);
    source.addEventListener('abort', () => both.abort(source.reason), { once: true, signal: both.signal });
  };
  if (signal !== undefined) follow(signal);
  if (run !== undefined) follow(controllers.get(run).signal);
  return both.signal;
}

module.exports = { CONTROLS, Queue, Run, check, perform, stopSignal };
