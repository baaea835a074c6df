'use strict';

const { engine } = require('./engine.js');
const { Handle, Owner, closing, create, handleOf, holding, own } = require('./handle.js');
const { openImage, pixels } = require('./image.js');
const { call, callAsync, text } = require('./library.js');
const { defaults, options } = require('./options.js');
const { withRoom } = require('./memory.js');
const { CONTROLS, Queue, check, perform, stopSignal } = require('./run.js');
const { Subject, adopt: adoptSubject } = require('./subject.js');
const { isTokens, read, toHandle } = require('./tokens.js');
const { invalid } = require('./error.js');
const { filePath, list, parse, string, u32 } = require('./values.js');

/** The most pictures of one call. */
const MOST = 256;

const queues = new WeakMap();

/** None if there are none. */
function subjectHandles(subjects) {
  if (subjects === null) return [];
  if (!Array.isArray(subjects)) throw new TypeError('subjects: an array is needed');
  return subjects.map((subject) => handleOf(subject, Subject));
}

/** An array of pointers as koffi takes it. */
function pointers(array) {
  return array.length > 0 ? array : null;
}

/** Does a long call that gives one handle of a noun. */
async function produce(queue, noun, controls, name, ...values) {
  return perform(queue, controls, async (run) => {
    const out = [null];
    await callAsync(name, ...values, run, out);
    return new Handle(noun, out[0]);
  });
}

/** A handle of the tokens of a picture. */
async function encode(queue, controls, model, image, size) {
  check(controls);
  return closing([await openImage(image)], (pointer) =>
    produce(queue, 'tokens', controls, 'tokens_encode', model, pointer, size),
  );
}

/** A pretrained model. */
class Model extends Owner {
  constructor() {
    super();
    throw new TypeError('models come from Model.open');
  }

  static async open(path, { threads, maxJobs, run, signal, onProgress, ...fields } = {}) {
    const place = filePath(path, 'path');
    const controls = { run, signal, onProgress };
    check(controls);
    const how = options('model', fields, [...CONTROLS, 'threads', 'maxJobs']);
    const from = engine({ threads, maxJobs });
    return closing(from === null ? [how] : [how, from], async () => {
      const values = [from?.pointer ?? null, place, how.pointer];
      const open = () => produce(new Queue(), 'model', controls, 'model_open', ...values);
      // A run serves one call.
      const handle = await withRoom(open, run === undefined);
      const model = own(Object.create(Model.prototype), handle);
      queues.set(model, new Queue(maxJobs));
      return model;
    });
  }

  get info() {
    return parse(text('model_info_json', handleOf(this, Model).pointer));
  }

  sampleOptions() {
    return defaults('sample', handleOf(this, Model).pointer);
  }

  trainOptions(method = null) {
    return defaults('train', handleOf(this, Model).pointer, method === null ? null : string(method, 'method'));
  }

  async encode(image, { size = 0, ...controls } = {}) {
    const target = u32(size, 'size');
    check(controls, ['size']);
    return holding([handleOf(this, Model)], async (model) =>
      closing([await encode(queues.get(this), controls, model, image, target)], read),
    );
  }

  async decode(tokens, controls = {}) {
    check(controls);
    return holding([handleOf(this, Model)], async (model) => {
      const image = await closing([toHandle(tokens)], (pointer) =>
        produce(queues.get(this), 'image', controls, 'image_decode', model, pointer),
      );
      return closing([image], pixels);
    });
  }

  async score(prompt, pictures, { subjects = [], ...controls } = {}) {
    check(controls, ['subjects']);
    const one = !Array.isArray(pictures);
    const words = string(prompt, 'prompt');
    const known = subjectHandles(subjects);
    return holding([handleOf(this, Model), ...known], async (model, ...learned) => {
      const queue = queues.get(this);
      const signal = stopSignal(controls);
      const grids = [];
      try {
        for (const picture of one ? [pictures] : pictures) {
          grids.push(isTokens(picture) ? toHandle(picture) : await encode(queue, { signal }, model, picture, 0));
        }
        if (grids.length === 0) return [];
        const scores = new Float64Array(grids.length);
        const values = [words, pointers(learned), learned.length, grids.map((grid) => grid.pointer), grids.length];
        await perform(queue, controls, (run) => callAsync('tokens_score', model, ...values, run, scores));
        return one ? scores[0] : Array.from(scores);
      } finally {
        for (const grid of grids) grid.close();
      }
    });
  }

  async sample(prompt, { count = 1, subjects = [], run, signal, onProgress, ...fields } = {}) {
    const words = string(prompt, 'prompt');
    const pictures = u32(count, 'count', 1, MOST);
    const known = subjectHandles(subjects);
    return holding([handleOf(this, Model), ...known], (model, ...learned) => {
      const how = options('sample', fields, [...CONTROLS, 'count', 'subjects'], model);
      return closing([how], (settings) =>
        perform(queues.get(this), { run, signal, onProgress }, async (running) => {
          const out = new Array(pictures).fill(null);
          const values = [words, pointers(learned), learned.length, settings, running, out, pictures];
          await callAsync('tokens_sample', model, ...values);
          return out.map((pointer) => new Sample(this, new Handle('tokens', pointer)));
        }),
      );
    });
  }

  async train(images, { method = null, captions, run, signal, onProgress, ...fields } = {}) {
    if (!Array.isArray(images)) throw new TypeError('images: an array is needed');
    const words = captions === undefined || captions === null ? null : list(captions, 'captions', string);
    if (words !== null && words.length !== images.length) {
      throw invalid('captions', `there are ${words.length}; ${images.length} pictures need as many, or none`);
    }
    const controls = { run, signal, onProgress };
    const way = method === null ? null : string(method, 'method');
    return holding([handleOf(this, Model)], (model) => {
      check(controls);
      const how = options('train', fields, [...CONTROLS, 'method', 'captions'], model, way);
      const dataset = create('dataset', 'dataset_new');
      return closing([how, dataset], async (settings, set) => {
        const stopped = stopSignal(controls);
        for (const [i, image] of images.entries()) {
          stopped.throwIfAborted();
          const opened = await openImage(image, `images[${i}]`);
          await closing([opened], (pointer) => call('dataset_add', set, pointer, words === null ? null : words[i]));
        }
        const learned = await produce(queues.get(this), 'subject', controls, 'subject_train', model, set, settings);
        return adoptSubject(learned);
      });
    });
  }
}

/** One drawn picture. */
class Sample extends Owner {
  #model;

  constructor(model, handle) {
    super();
    if (!(handle instanceof Handle)) throw new TypeError('samples come from Model.sample');
    this.#model = model;
    own(this, handle);
    this.tokens = read(handle.pointer);
  }

  /** A handle of the picture, which knows what made it. */
  #decoded(controls) {
    return holding([handleOf(this.#model, Model), handleOf(this, Sample)], (model, tokens) =>
      produce(queues.get(this.#model), 'image', controls, 'image_decode', model, tokens),
    );
  }

  async image(controls = {}) {
    check(controls);
    return closing([await this.#decoded(controls)], pixels);
  }

  async savePng(path, controls = {}) {
    check(controls);
    const place = filePath(path, 'path');
    await closing([await this.#decoded(controls)], (image) => callAsync('image_save_png', image, place));
  }
}

module.exports = { Model, Sample };
