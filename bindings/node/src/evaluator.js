'use strict';

const { constants } = require('./abi.json');
const { Handle, Owner, closing, create, handleOf, holding, own } = require('./handle.js');
const { openImage } = require('./image.js');
const { call, callAsync, text } = require('./library.js');
const { engine } = require('./engine.js');
const { invalid } = require('./error.js');
const { options } = require('./options.js');
const { CONTROLS, Queue, check, perform, stopSignal } = require('./run.js');
const { filePath, list, parse, string } = require('./values.js');

const queues = new WeakMap();

/** Numbers of `count` vectors, one after the other, cut apart. */
function apart(numbers, count) {
  const size = numbers.length / count;
  return Array.from({ length: count }, (_, i) => numbers.slice(i * size, (i + 1) * size));
}

/** An array of pointers or texts as koffi takes it. */
function array(items) {
  return items.length > 0 ? items : null;
}

/** The vectors that a function of the library makes of items. */
async function vectors(evaluator, name, items, controls) {
  return holding([handleOf(evaluator, Evaluator)], async (pointer) => {
    const values = [pointer, array(items), items.length];
    const needed = [0];
    call(name, ...values, null, null, 0, needed);
    if (items.length === 0) return [];
    const numbers = new Float32Array(needed[0]);
    await perform(queues.get(evaluator), controls, (run) => callAsync(name, ...values, run, numbers, numbers.length, needed));
    return apart(numbers, items.length);
  });
}

/** The same of one image, or of several. */
async function ofImages(evaluator, name, images, controls) {
  check(controls);
  const one = !Array.isArray(images);
  const stopped = stopSignal(controls);
  const opened = [];
  try {
    for (const [i, image] of (one ? [images] : images).entries()) {
      stopped.throwIfAborted();
      opened.push(await openImage(image, one ? 'image' : `images[${i}]`));
    }
    const pointers = opened.map((image) => image.pointer);
    const made = await vectors(evaluator, name, pointers, controls);
    return one ? made[0] : made;
  } finally {
    for (const image of opened) image.close();
  }
}

/** Networks that measure pictures. */
class Evaluator extends Owner {
  constructor() {
    super();
    throw new TypeError('evaluators come from Evaluator.open');
  }

  static async open({ threads, maxJobs, run, signal, onProgress, ...fields } = {}) {
    const controls = { run, signal, onProgress };
    check(controls);
    const how = options('evaluator', fields, [...CONTROLS, 'threads', 'maxJobs']);
    const from = engine({ threads, maxJobs });
    return closing(from === null ? [how] : [how, from], () =>
      perform(new Queue(), controls, async (running) => {
        const out = [null];
        await callAsync('evaluator_open', from?.pointer ?? null, how.pointer, running, out);
        const evaluator = own(Object.create(Evaluator.prototype), new Handle('evaluator', out[0]));
        queues.set(evaluator, new Queue(maxJobs));
        return evaluator;
      }),
    );
  }

  get info() {
    return parse(text('evaluator_info_json', handleOf(this, Evaluator).pointer));
  }

  async dino(images, controls = {}) {
    return ofImages(this, 'evaluator_dino', images, controls);
  }

  async clipImage(images, controls = {}) {
    return ofImages(this, 'evaluator_clip_image', images, controls);
  }

  async clipText(texts, controls = {}) {
    const words = Array.isArray(texts) ? list(texts, 'texts', string) : [string(texts, 'texts')];
    const made = await vectors(this, 'evaluator_clip_text', words, controls);
    return Array.isArray(texts) ? made : made[0];
  }

  async score(pictures, references, given = {}) {
    const { texts = '', protocol = 'B', identifier = null, classPictures = [], untouched = [], ...controls } = given;
    check(controls, ['texts', 'protocol', 'identifier', 'classPictures', 'untouched']);
    const drawn = Array.isArray(pictures) ? pictures : [pictures];
    const words = Array.isArray(texts) ? list(texts, 'texts', string) : drawn.map(() => string(texts, 'texts'));
    if (words.length !== drawn.length) {
      throw invalid('texts', `there are ${words.length}; ${drawn.length} pictures need as many, or one`);
    }
    const groups = [
      ['PICTURE', 'pictures', drawn],
      ['REFERENCE', 'references', Array.isArray(references) ? references : [references]],
      ['CLASS_PICTURE', 'classPictures', classPictures],
      ['UNTOUCHED', 'untouched', untouched],
    ];
    return holding([handleOf(this, Evaluator)], (evaluator) =>
      closing([create('evaluation', 'evaluation_new')], async (evaluation) => {
        call('evaluation_set_protocol', evaluation, string(protocol, 'protocol'));
        call('evaluation_set_identifier', evaluation, identifier === null ? null : string(identifier, 'identifier'));
        for (const [role, name, images] of groups) {
          const places = list(images, name, (image) => image);
          for (const [i, image] of places.entries()) {
            await add(evaluation, constants[`ROLE_${role}`], image, role === 'PICTURE' ? words[i] : null, `${name}[${i}]`);
          }
        }
        return perform(queues.get(this), controls, async (run) => {
          const out = [null];
          await callAsync('evaluator_score', evaluator, evaluation, run, out);
          return closing([new Handle('scores', out[0])], (scores) => parse(text('scores_json', scores)));
        });
      }),
    );
  }
}

/** Adds a file, which is read when its turn comes, or pixels. */
async function add(evaluation, role, image, words, name) {
  if (typeof image === 'string' || image instanceof URL) {
    call('evaluation_add_file', evaluation, role, filePath(image, name), words);
    return;
  }
  await closing([await openImage(image, name)], (pointer) => call('evaluation_add_image', evaluation, role, pointer, words));
}

module.exports = { Evaluator };
